import json
import math

import jax
import pytest
from jax.sharding import AxisType

from jaxspeech import config as configs
from jaxspeech.data.manifest import Collection
from jaxspeech.errors import UserError
from jaxspeech.evaluation.evaluate import Evaluator, evaluation_sets
from jaxspeech.observe.compilations import CompilationCounter
from jaxspeech.parallel import sharding

TEXTS = ["abc", "a b", "hello there world", "c", "xyz xyz", "many more words than the others have", "b"]


def mesh(data=1, fsdp=1):
    devices = jax.devices()[: data * fsdp]
    return jax.make_mesh((data, fsdp, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3, devices=devices)


@pytest.fixture
def make(level_task, tmp_path):
    """An evaluator of files that say a text, and the parameters of a model that hears everything right."""

    def make(texts, where=None, edit=None, **section):
        manifest = level_task.write_set(tmp_path, texts)
        if edit:
            edit(tmp_path, manifest)
        where = where or mesh()
        config = level_task.config(**section)
        evaluator = Evaluator(level_task.Levels(), "dev", Collection.open(str(manifest)), config.eval, where)
        return evaluator, lambda **values: sharding.replicate(level_task.params(**values), where)

    return make


def test_a_model_that_hears_everything_right_has_no_errors(make, tmp_path, level_task):
    evaluator, params = make([(text, text) for text in TEXTS])
    result = evaluator.run(params(scale=0.5))
    assert (result.wer, result.cer, result.utterances, result.failed) == (0.0, 0.0, len(TEXTS), 0)
    assert [row["id"] for row in result.records] == [f"u{i}" for i in range(len(TEXTS))]
    assert [row["hypothesis"] for row in result.records] == TEXTS
    assert result.records[1]["audio"] == str(tmp_path / "u1.wav")
    assert result.audio_seconds == pytest.approx(sum(map(len, TEXTS)) * 0.02)
    assert result.rtfx > 0

    ids = [level_task.Levels().tokenizer.encode(text) for text in TEXTS]
    assert result.loss == pytest.approx(0.5 * sum(map(sum, ids)) / sum(map(len, ids)), rel=1e-6)
    assert result.sums["evenness"] == pytest.approx(sum(i % 2 for text in ids for i in text) / sum(map(len, ids)))
    assert result.records[3]["loss"] == pytest.approx(0.5 * ids[3][0])


def test_errors_are_counted_over_the_set_and_shown_by_utterance(make):
    evaluator, params = make([("a b c d", "a b c d"), ("one too", "one two"), ("extra words", "words"), ("x", "y z")])
    result = evaluator.run(params())
    assert result.scores.words == 9
    assert result.wer == pytest.approx((1 + 1 + 2) / 9)
    assert [row["wer"] for row in result.records] == [0.0, 0.5, 1.0, 1.0]
    assert [row["id"] for row in result.worst(2)] == ["u3", "u2"]
    assert len(result.worst(9)) == 3  # those without an error are not among the worst


def test_audio_that_cannot_be_read_counts_as_missed(make):
    evaluator, params = make(
        [("a b", "a b"), ("c d e", "c d e"), ("f", "f")], edit=lambda folder, _: (folder / "u1.wav").unlink()
    )
    result = evaluator.run(params())
    assert result.wer == pytest.approx(3 / 6)
    assert (result.scores.deletions, result.scores.missing, result.failed) == (3, 1, 1)
    row = result.records[1]
    assert row["error"].startswith("missing file")
    assert (row["hypothesis"], row["loss"], row["wer"]) == ("", None, 1.0)
    assert all(math.isfinite(row["loss"]) for row in result.records if "error" not in row)
    assert result.audio_seconds == pytest.approx((3 + 1) * 0.02)


def test_nothing_is_filtered_however_long_or_short(make):
    long = " ".join(["abcdefghi"] * 250)  # 50 s, far beyond data.max_seconds and the seconds of a batch
    evaluator, params = make([("a", "a"), (long, long), ("bc", "bc")], batch_seconds=2.0)
    result = evaluator.run(params())
    assert (result.wer, result.utterances, result.scores.words) == (0.0, 3, 252)


def test_an_empty_transcript_is_scored(make):
    evaluator, params = make([("noise", ""), ("a", "a")])
    result = evaluator.run(params())
    assert result.scores.insertions == 1
    assert result.wer == 1.0


def test_nothing_compiles_after_the_first_run(make):
    evaluator, params = make([(text, text) for text in TEXTS * 3], batch_seconds=1.0)
    assert len(evaluator._schedule.shapes) > 1
    first, second = params(), params(shift=1)
    jax.block_until_ready((first, second))
    evaluator.compile(first)
    with CompilationCounter() as counter:
        assert evaluator.run(first).wer == 0.0
        assert evaluator.run(second).wer == 1.0
    assert counter.names == []


def test_rows_spread_over_devices_give_the_same_result(make):
    texts = [(text, text.replace("o", "u")) for text in TEXTS * 4]
    results = []
    for where in (mesh(), mesh(data=4, fsdp=2)):
        evaluator, params = make(texts, where)
        results.append(evaluator.run(params()))
    one, eight = results
    assert one.wer == eight.wer > 0
    assert [row["hypothesis"] for row in one.records] == [row["hypothesis"] for row in eight.records]
    assert one.loss == pytest.approx(eight.loss, rel=1e-6)


def test_a_poll_that_says_stop_ends_the_evaluation(make):
    evaluator, params = make([(text, text) for text in TEXTS * 4], batch_seconds=1.0)
    answers = iter([False, False, True])
    assert evaluator.run(params(), poll=lambda: next(answers)) is None
    assert evaluator.run(params(), poll=lambda: False).wer == 0.0


def test_progress_counts_utterances(make):
    seen = []
    evaluator, params = make([(text, text) for text in TEXTS], batch_seconds=1.0)
    evaluator.run(params(), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(TEXTS), len(TEXTS))


def test_the_loss_alone_needs_no_decoding(make):
    evaluator, params = make([("ab", "ab")], decode=False)
    result = evaluator.run(params())
    assert (result.wer, result.cer, result.rtfx, result.records[0]["hypothesis"]) == (None, None, None, None)
    assert result.loss > 0
    assert result.samples(3) == result.worst(3) == []


def test_beams_and_normaliser_are_those_of_the_section(make):
    evaluator, params = make([("color", "colour")], beams=3, normalizer="english")
    result = evaluator.run(params())
    assert result.wer == 0.0
    assert result.scores.normalizer.startswith("english (whisper_normalizer")


def test_numbers_are_plain_and_rates_are_fractions(make):
    evaluator, params = make([("a b", "a c"), ("d", "d")])
    summary = evaluator.run(params()).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["wer"] == pytest.approx(1 / 3)
    assert {"set", "utterances", "wer", "cer", "loss", "audio_seconds", "rtfx"} <= summary.keys()
    assert summary["scorer"].startswith("jiwer 4")


def test_a_model_that_diverged_is_reported_in_json_that_reads(make):
    evaluator, params = make([("a", "a")])
    result = evaluator.run(params(scale=math.nan))
    assert math.isnan(result.loss)
    assert json.loads(json.dumps([result.summary(), result.records], allow_nan=False))[0]["loss"] is None


def test_samples_are_spread_over_the_set_and_stay_the_same(make):
    evaluator, params = make([(text, text) for text in TEXTS])
    right, wrong = evaluator.run(params()), evaluator.run(params(shift=1))
    assert [text.split()[0] for text in right.samples(3)] == ["u0", "u3", "u6"]
    assert [text.split()[0] for text in wrong.samples(3)] == ["u0", "u3", "u6"]
    assert "said:  abc\n    heard: bcd" in wrong.samples(1)[0]
    assert len(right.samples(100)) == len(TEXTS)


def test_hypotheses_are_written_as_json_lines(make, tmp_path):
    evaluator, params = make([("a é".replace("é", "e"), "a é"), ("b", "b")])
    result = evaluator.run(params())
    result.write(tmp_path / "out" / "dev.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out" / "dev.jsonl").read_text().splitlines()]
    assert rows == result.records
    assert list(rows[0]) == ["id", "reference", "hypothesis", "loss", "wer", "duration", "audio"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dev.jsonl"]


def test_a_place_that_cannot_be_written_is_explained(make, tmp_path):
    evaluator, params = make([("a", "a")])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        evaluator.run(params()).write(tmp_path / "file" / "dev.jsonl")


def test_a_list_of_sets_is_named_after_its_files(tmp_path):
    paths = []
    for name in ("clean/dev.jsonl", "other/dev.jsonl", "far.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"id": "a", "audio": "a.wav", "text": "x", "duration": 1.0}\n')
        paths.append(str(path))
    config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
    config.data.eval = paths[1:]
    assert list(evaluation_sets(config)) == ["dev", "far"]
    with config.unlocked():
        config.data.eval = paths
    with pytest.raises(UserError, match="two sets would be named alike"):
        evaluation_sets(config)
    with config.unlocked():
        config.data.eval = {"clean": paths[0], "other": paths[1]}
    assert list(evaluation_sets(config)) == ["clean", "other"]
