"""Checkpoints: which are kept, what comes back, and that a failed save is said."""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import SingleDeviceSharding

from jaxspeech import output
from jaxspeech.checkpoint import restore
from jaxspeech.checkpoint.fingerprint import refuse_changes
from jaxspeech.checkpoint.store import Checkpoints, abstract
from jaxspeech.errors import UserError


def state(value: float = 0.0):
    params = {"kernel": jnp.full((3, 2), value), "scale": jnp.arange(4.0)}
    return {"params": params, "opt": optax.adamw(1e-3).init(params), "step": jnp.int32(3)}


def layout(tree):
    here = SingleDeviceSharding(jax.devices()[0])
    return abstract(tree, jax.tree.map(lambda _: here, tree))


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    saved = state(float(np.float32(1) / 3))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, saved, {"ledger": {"read": 3}})
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.newest() == 7
    assert again.meta(7) == {"ledger": {"read": 3}}
    restored = again.restore(7, layout(state()))
    jax.tree.map(np.testing.assert_array_equal, restored, saved)
    assert jax.tree.structure(restored) == jax.tree.structure(saved)


def test_newest_every_and_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, keep_every=50, keep_best=1)
    for step, score in [(10, 0.5), (20, 0.1), (30, 0.4), (40, None), (50, None), (60, 0.3), (70, 0.2)]:
        checkpoints.save(step, state(), {"score": score})
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=2, keep_every=50, keep_best=1)
    assert again.steps() == [20, 50, 60, 70]
    assert again.best() == 20


def test_without_scores_the_newest_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(), {})
    checkpoints.finish()
    assert checkpoints.best() == 2


def test_another_model_is_refused_in_one_line(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(), {})
    checkpoints.close()
    other = state() | {"params": {"kernel": jnp.zeros((5, 2)), "scale": jnp.zeros(4)}}
    with pytest.raises(UserError, match="cannot be restored"):
        Checkpoints(tmp_path).restore(1, layout(other))


def test_an_unfinished_save_is_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(), {})
    checkpoints.close()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    assert Checkpoints(tmp_path).newest() == 1


def test_a_kill_while_old_ones_are_removed_leaves_no_half_of_a_checkpoint(tmp_path, monkeypatch):
    """Removing takes long and a kill may come in between: so it happens out of sight."""
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before it is done
    checkpoints = Checkpoints(tmp_path, keep=1, keep_best=0)
    for step in (1, 2, 3):
        checkpoints.save(step, state(), {})
    checkpoints.close()
    monkeypatch.undo()
    assert (tmp_path / "deleted").is_dir()
    assert Checkpoints(tmp_path).steps() == [3]
    assert not (tmp_path / "deleted").exists()


def test_a_failed_save_is_an_error_at_the_next_check(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(), {})
    checkpoints.finish()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(UserError, match=r"No space left on device.*newest whole one is step 1"):
        checkpoints.save(2, state(), {})


def test_a_restart_that_would_train_something_else_is_refused():
    before = {"seed": 0, "manifest train": "aa", "tokenizer": "bb", "data.shapes": 8}
    refuse_changes(before, dict(before), "runs/a")
    now = before | {"seed": 1, "manifest train": "cc"}
    with pytest.raises(UserError, match=r"manifest train has other content; seed was 0, is 1.*accept_changes=true"):
        refuse_changes(before, now, "runs/a")


def test_whoever_reads_leaves_a_save_under_way_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(), {"score": 0.5})
    checkpoints.finish()
    (under_way := tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    (going := tmp_path / "deleted" / "0").mkdir(parents=True)
    reader = Checkpoints(tmp_path, read_only=True)
    assert (reader.steps(), reader.best(), reader.meta(1)["score"]) == ([1], 1, 0.5)
    reader.close()
    assert under_way.is_dir()
    assert going.is_dir()


def test_what_one_save_moves_aside_is_not_swept_away_by_the_next(tmp_path, monkeypatch):
    replace = os.replace

    def slowly(source, target, **options):
        if "deleted" in str(target):
            time.sleep(0.3)
        return replace(source, target, **options)

    monkeypatch.setattr(os, "replace", slowly)
    checkpoints = Checkpoints(tmp_path, keep=1, keep_best=0)
    for step in range(1, 5):
        checkpoints.save(step, state(), {})
        time.sleep(0.2)
        checkpoints.check()
    checkpoints.close()
    assert Checkpoints(tmp_path).steps() == [4]


def test_a_score_that_comes_after_the_save_ranks_it_in_later_processes_too(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, state(), {"score": 0.5})
    checkpoints.save(2, state(), {"score": None})
    checkpoints.finish()
    checkpoints.score_later(2, 0.1)
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=1)
    assert (again.best(), again.scored_later(1), again.scored_later(2)) == (2, False, True)
    again.save(3, state(), {"score": None})
    again.close()
    assert Checkpoints(tmp_path).steps() == [2, 3]  # the best is kept, for all that its meta has no score


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be used .*choose another --workdir"):
        Checkpoints(tmp_path / "file" / "checkpoints")
    with pytest.raises(UserError, match=r"cannot be made: .*choose another folder"):
        output.folder(tmp_path / "file", "--workdir")
    with pytest.raises(UserError, match="--workdir is empty"):
        output.folder("", "--workdir")


def test_the_tokenizer_that_is_kept_is_that_of_the_last_start(tmp_path):
    (work := tmp_path / "run").mkdir()
    for name, content in (("a.json", "old"), ("b.json", "new"), ("c.model", "other")):
        (tmp_path / name).write_text(content)
        restore.keep_tokenizer(str(tmp_path / name), work)
        (kept,) = work.glob("tokenizer.*")
        assert kept.read_text() == content
    restore.keep_tokenizer("characters:abc", work)
    assert not list(work.iterdir())
