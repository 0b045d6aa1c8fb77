"""Saving and restoring the training state: Orbax behind one small class.

Saves are asynchronous and atomic: a step's folder appears under its number only when all of it is on disk, so a kill at
any moment leaves the earlier checkpoints whole.
"""

import json
import logging
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxspeech import output
from jaxspeech.errors import UserError

_STATE, _META, _DELETED = "state", "meta", "deleted"
_LATER = "scores.json"  # of steps that were evaluated only after they had been saved


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
        folder: `<workdir>/checkpoints`.
        keep: how many of the newest stay.
        keep_every: every step that this divides stays for good; 0: none.
        keep_best: how many of those with the lowest score (WER) stay.
        read_only: nothing is made, tidied or removed: a run that trains meanwhile must not lose the save under way.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        *,
        keep: int = 3,
        keep_every: int = 0,
        keep_best: int = 1,
        read_only: bool = False,
    ) -> None:
        self.folder = pathlib.Path(folder).absolute()
        self._keep, self._keep_every, self._keep_best = keep, keep_every, keep_best
        self._scores: dict[int, float] = {}
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells every file it writes
        self._read_only = read_only
        if read_only:
            options = ocp.CheckpointManagerOptions(read_only=True)
        else:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=jax.process_count() == 1,
                # Moved aside in one go, then removed: a kill in the middle leaves no half of a checkpoint.
                todelete_subdir=_DELETED,
            )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=(_STATE, _META))
        except OSError as error:
            raise UserError(f"{self.folder} cannot be used ({error.strerror}); choose another --workdir") from error
        self._remove_deleted()
        later = self._later_scores()
        for step in self.steps():
            score = self.meta(step).get("score")
            score = later.get(step) if score is None else score
            if score is not None:
                self._scores[step] = score

    def steps(self) -> list[int]:
        """Steps whose checkpoints are complete, ascending."""
        return sorted(self._manager.all_steps())

    def newest(self) -> int | None:
        """The newest complete step. Only right in a process that has not saved yet (Orbax counts saves under way)."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step with the lowest score; the newest where none has a score."""
        return min(self._scores, key=lambda step: (self._scores[step], step), default=self.newest())

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts to save; returns when the state is copied off the devices. `meta["score"]` (lower is better) ranks it.

        Raises:
            UserError: this or an earlier save failed.
        """
        if meta.get("score") is not None:
            self._scores[step] = float(meta["score"])
        try:
            # The save before may be about to move a step into the folder that goes; `save` would wait for it anyway.
            self._manager.wait_until_finished()
            self._remove_deleted()
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{_STATE: ocp.args.StandardSave(state), _META: ocp.args.JsonSave(meta)},
                ),
                force=True,
            )
        except Exception as error:
            raise self._failed(error) from error

    def score_later(self, step: int, score: float | None) -> None:
        """Notes the score of a step that was saved before it was evaluated; `None`: evaluated, but there is none."""
        if jax.process_index() == 0:
            scores = {str(known): value for known, value in self._later_scores().items() if known in self.steps()}
            try:
                output.write(self.folder / _LATER, json.dumps(scores | {str(step): score}).encode())
            except OSError as error:
                raise self._failed(error) from error
        if score is not None:
            self._scores[step] = score

    def scored_later(self, step: int) -> bool:
        """Whether `score_later` was called for a step, in whatever process."""
        return step in self._later_scores()

    def _later_scores(self) -> dict[int, float | None]:
        try:
            return {int(step): score for step, score in json.loads((self.folder / _LATER).read_text("utf-8")).items()}
        except FileNotFoundError:
            return {}

    def check(self) -> None:
        """Raises `UserError` if a save under way has failed. Cheap: called every step."""
        try:
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Waits until everything is on disk."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Waits and frees the threads."""
        self.finish()
        self._manager.close()
        self._remove_deleted()

    def restore(self, step: int, abstract: Any) -> Any:
        """The state of a step, laid out as `abstract` (ShapeDtypeStructs with shardings) asks.

        Raises:
            UserError: the checkpoint is damaged or has other parameters than the config describes.
        """
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(abstract)})
            )
        except Exception as error:
            raise UserError(
                f"checkpoint {self.folder / str(step)} cannot be restored: {_sentence(error)}. If it is "
                "damaged, remove that "
                "folder to go on from the one before; if the model in the config has changed, use another --workdir"
            ) from error
        return restored[_STATE]

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the state."""
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{_META: ocp.args.JsonRestore()}))[_META]
        except Exception as error:
            raise UserError(
                f"checkpoint {self.folder / str(step)} is damaged ({_sentence(error)}); remove that folder to "
                "go on from "
                "the one before"
            ) from error

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Orbax's preservation policy: newest, every so many steps, best."""
        steps = [int(info.step) for info in checkpoints]
        newest = set(sorted(steps)[-self._keep :])
        ranked = sorted((self._scores[step], step) for step in steps if step in self._scores)
        best = {step for _, step in ranked[: self._keep_best]}
        for step in set(self._scores) - set(steps):
            del self._scores[step]
        every = self._keep_every
        return [step in newest or step in best or bool(every and step % every == 0) for step in steps]

    def _remove_deleted(self) -> None:
        if jax.process_index() == 0 and not self._read_only:
            shutil.rmtree(self.folder / _DELETED, ignore_errors=True)

    def _failed(self, error: Exception) -> UserError:
        kept = [step for step in self.steps() if (self.folder / str(step)).is_dir()]
        whole = f"the newest whole one is step {max(kept)}" if kept else "there is none yet"
        return UserError(
            f"a checkpoint could not be saved in {self.folder}: {_sentence(error)}. Make room or check the "
            "permissions and "
            f"start the same command again ({whole})"
        )


def abstract(tree: Any, shardings: Any) -> Any:
    """ShapeDtypeStructs with shardings, as `restore` takes them."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding), tree, shardings
    )


def _sentence(error: BaseException) -> str:
    """The telling part of an error that may be a page long."""
    text = " ".join(str(error).split()).partition(" See full TensorStore details")[0]
    return (text[:300] + "…") if len(text) > 300 else text or type(error).__name__
