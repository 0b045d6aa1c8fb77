"""What a run remembers of its data: whatever changes the batches changes the fingerprint, and is named."""

import json

import pytest

from jaxspeech.checkpoint.fingerprint import fingerprint, refuse_changes
from jaxspeech.config import base
from jaxspeech.data.manifest import Collection
from jaxspeech.errors import UserError


@pytest.fixture
def of(tmp_path):
    for name in ("a", "b"):
        row = {"id": name, "audio": "x.wav", "text": name, "duration": 1.0}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")

    def make(spec):
        spec = {key: str(tmp_path / path) for key, path in spec.items()}
        return fingerprint(base("jaxspeech.tasks.moonshine.Moonshine"), Collection.open(spec), "tokens")

    return make


def test_the_same_manifests_are_the_same(of):
    assert of({"a": "a.jsonl", "b": "b.jsonl"}) == of({"a": "a.jsonl", "b": "b.jsonl"})


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"1.0": "a.jsonl"}, {"2.0": "a.jsonl"}, "weight of a was 1.0, is 2.0"),
        ({"a": "a.jsonl", "b": "b.jsonl"}, {"b": "b.jsonl", "a": "a.jsonl"}, "order of manifests was"),
        ({"a": "a.jsonl"}, {"a": "a.jsonl", "b": "b.jsonl"}, ": manifest b was not there. Undo"),
        ({"a": "a.jsonl"}, {"a": "b.jsonl"}, ": manifest a has other content. Undo"),
    ],
)
def test_what_changes_the_batches_is_refused_and_named(of, before, now, said):
    with pytest.raises(UserError, match="would silently train something else") as error:
        refuse_changes(of(before), of(now), "runs/a")
    assert said in str(error.value)
