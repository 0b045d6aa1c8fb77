"""Configs: every file has a golden dump, and every mistake is one clear line."""

import pathlib

import pytest

from jaxspeech import config as configs
from jaxspeech.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
DIGITS = str(ROOT / "configs" / "digits.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_equals_its_golden_dump(path):
    """After a wanted change: python tests/golden/dump_configs.py."""
    golden = ROOT / "tests" / "golden" / "configs" / f"{path.stem}.txt"
    assert configs.dump(configs.load(str(path))) == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_survives_the_way_through_json(path):
    config = configs.load(str(path))
    assert configs.dump(configs.from_json(configs.to_json(config))) == configs.dump(config)


def test_a_misspelt_override_is_refused_with_the_nearest_right_one():
    with pytest.raises(UserError, match=r"'optim.learning_rte'; did you mean --config.optim.learning_rate\?"):
        configs.load(DIGITS, ["--config.optim.learning_rte=1"])


def test_a_misspelt_key_in_a_file_is_refused(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(
        "from jaxspeech.config import base\ndef get_config():\n"
        " c = base('jaxspeech.tasks.moonshine.Moonshine')\n c.train.stesp = 3\n return c\n"
    )
    with pytest.raises(UserError, match="stesp"):
        configs.load(str(path))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--config.train.steps=many", "a whole number is needed"),
        ("--config.train.steps=1.5", "a whole number is needed"),
        ("--config.optim.learning_rate=fast", "a number is needed"),
        ("--config.optim.learning_rate=nan", "a number is needed"),
        ("--config.log.tensorboard=maybe", "true or false is needed"),
        ("--config.train.steps", "the form is --config.section.key=value"),
        ("--steps=3", "the form is --config.section.key=value"),
        ("--config.optim.lr=3", r"did you mean --config\.optim\.learning_rate\?"),
        ("--config.train.epochs=3", r"did you mean --config\.train\.steps\?"),
        ("--config.model.language_tokens_per_second=3", "a mapping is needed"),
    ],
)
def test_a_value_of_another_type_is_refused(word, said):
    with pytest.raises(UserError, match=said):
        configs.load(DIGITS, [word])


def test_overrides_keep_the_type_of_the_key():
    config = configs.load(
        DIGITS,
        ["--config.optim.learning_rate=2", "--config.train.steps=7", "--config.log.tensorboard=false",
         "--config.data.train=a.jsonl", '--config.data.eval={"near": "b.jsonl", "far": "c.jsonl"}'],
    )  # fmt: skip
    assert isinstance(config.optim.learning_rate, float)
    assert config.train.steps == 7
    assert config.log.tensorboard is False
    assert config.data.train == "a.jsonl"
    assert configs.manifest_paths(config.data.eval) == ["b.jsonl", "c.jsonl"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "config.data.train is empty"),
        (["--config.data.train=nowhere.jsonl"], "no manifest 'nowhere.jsonl'"),
        (["--config.data.train={here}", "--config.data.tokenizer=tok.json"], "no file 'tok.json'"),
        (["--config.data.train={here}", "--config.init_from=nowhere"], "no folder 'nowhere'"),
        (["--config.data.train={here}", "--config.optim.name=adamv"], "did you mean 'adamw'"),
        (["--config.data.train={here}", "--config.train.steps=-1"], "must not be negative"),
        (["--config.data.train={here}", "--config.log.every=0"], "must be greater than 0"),
        (["--config.data.train={here}", "--config.data.batch_rows=4"], "are both set"),
        (["--config.data.train={here}", "--config.data.max_seconds=0.05"], "leaves nothing below"),
        (["--config.data.train={here}", "--config.data.batching=packed", "--config.data.row_seconds=5"], "no row"),
        (["--config.data.train={here}", "--config.data.max_failed=5"], "from 0 to 1"),
        (["--config.data.train={here}", "--config.seed=99999999999999999999"], "less than 2"),
        (["--config.data.train={here}", '--config.data.augment.babble.snr_db=[1,"a"]'], "two numbers of dB"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(words, said, tmp_path):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("")
    with pytest.raises(UserError, match=said):
        configs.validate(configs.load(DIGITS, [word.replace("{here}", str(manifest)) for word in words]))


def test_a_missing_config_file_and_a_task_that_does_not_exist_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no config file 'configs/none\.py'"):
        configs.load("configs/none.py")
    with pytest.raises(UserError, match=r"'jaxspeech\.tasks\.moonshine\.Moonshin' cannot be imported"):
        configs.base("jaxspeech.tasks.moonshine.Moonshin")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import nosuch\n", r"c\.py:1: ModuleNotFoundError: No module named 'nosuch'"),
        ("def get_config():\n    x = 1\n    return 1 / 0\n", r"c\.py:3: ZeroDivisionError"),
        ("def get_config():\n    pass\n", r"c\.py: get_config\(\) returns None.*return config"),
    ],
)
def test_a_mistake_in_a_config_file_is_one_line_with_its_place(body, said, tmp_path):
    (tmp_path / "c.py").write_text(body)
    with pytest.raises(UserError, match=said):
        configs.load(str(tmp_path / "c.py"))


def test_json_is_json_also_where_a_file_has_set_a_path(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(
        f"import runpy\ndef get_config():\n c = runpy.run_path({DIGITS!r})['get_config']()\n"
        " c.data.train = 'train.jsonl'\n return c\n"
    )
    config = configs.load(str(path), ['--config.data.train={"1.0": "a.jsonl"}', '--config.data.eval=["b.jsonl"]'])
    assert configs.manifest_paths(config.data.train) == ["a.jsonl"]
    assert configs.manifest_paths(config.data.eval) == ["b.jsonl"]
