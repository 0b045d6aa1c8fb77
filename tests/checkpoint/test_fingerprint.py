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

    def make(spec, **changes):
        spec = {key: str(tmp_path / path) for key, path in spec.items()}
        config = base("jaxspeech.tasks.moonshine.Moonshine")
        config.data.update(changes)
        return fingerprint(config, Collection.open(spec), "tokens")

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


def test_rounding_the_samples_to_16_bits_is_refused_too(of):
    spec = {"a": "a.jsonl"}
    before_the_key = {key: value for key, value in of(spec).items() if key != "data.audio_dtype"}
    for before in (of(spec), before_the_key):
        refuse_changes(before, of(spec), "runs/a")
        with pytest.raises(UserError, match=r"data\.audio_dtype was 'float32', is 'int16'"):
            refuse_changes(before, of(spec, audio_dtype="int16"), "runs/a")
