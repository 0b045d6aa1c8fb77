"""The start-up audit and the preparation: what is refused before the first step."""

import json

import pytest
from drill import TINY, make_corpus

from jaxspeech import config as configs
from jaxspeech import params as trees
from jaxspeech.audit import audit
from jaxspeech.errors import UserError
from jaxspeech.prepare import describe, prepare


def config_for(manifest, **changes):
    config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
    for name, value in (TINY | {"model.vocab_size": 0, "data.train": manifest} | changes).items():
        configs.override(config, name, str(value))
    return config


def prepared(manifest, **changes):
    found = prepare(config_for(manifest, **changes))
    return found, trees.shapes(found.task.init)


def rewrite(manifest, change):
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        change(row)
    other = manifest.with_name("other.jsonl")
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return other


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), 16)


def test_a_sound_corpus_passes(manifest):
    assert audit(*prepared(manifest)) is None


def test_nothing_trainable_is_refused(manifest):
    with pytest.raises(UserError, match="nothing would train"):
        audit(prepared(manifest)[0], {})


def test_empty_transcripts_for_all_are_refused(manifest):
    silent = rewrite(manifest, lambda row: row.update(text=" "))
    with pytest.raises(UserError, match="every transcript is empty"):
        audit(*prepared(silent))


def test_durations_of_another_sampling_rate_are_refused(manifest):
    wrong = rewrite(manifest, lambda row: row.update(duration=row["duration"] * 2))
    with pytest.raises(UserError, match=r"2\.00 times those in the headers"):
        audit(*prepared(wrong))


def test_audio_that_is_not_there_is_refused_at_once(manifest):
    gone = rewrite(manifest, lambda row: row.update(audio="gone/" + row["audio"]))
    with pytest.raises(UserError, match="none of 16 utterances looked at can be read"):
        audit(*prepared(gone))


def test_texts_longer_than_the_cap_are_refused(manifest):
    with pytest.raises(UserError, match=r"raise config\.model\.tokens_per_second"):
        audit(*prepared(manifest, **{"model.tokens_per_second": 0.1, "model.min_tokens": 1}))


def test_filters_that_leave_nothing_are_refused_with_counts(manifest):
    with pytest.raises(UserError, match=r"too short: 16"):
        prepare(config_for(manifest, **{"data.min_seconds": 20.0}))


def test_fitting_without_a_device_is_refused(manifest):
    with pytest.raises(UserError, match="fitting them needs a device"):
        prepare(config_for(manifest, **{"data.batch_seconds": 0.0}))


def test_the_description_adds_up(manifest):
    report = describe(prepared(manifest)[0])
    assert report["utterances"] == 16
    assert sum(shape["batches"] for shape in report["shapes"]) == report["batches"]
    area = sum(s["batches"] * s["rows"] * s["audio_seconds"] for s in report["shapes"])
    assert report["hours"] * 3600 == pytest.approx(area * (1 - report["padding"]))
