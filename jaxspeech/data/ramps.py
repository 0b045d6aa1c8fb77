"""Schedules over steps: how far a part of the augmentation has come in."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Ramp:
    """0 up to step `delay`, then a straight line up to 1, which is reached `length` steps later.

    A step is the number of a batch, counted from 0: so an utterance sounds the same after a restart and on any number
    of hosts.
    """

    delay: int = 0
    length: int = 0

    def __call__(self, step: int | None) -> float:
        """The share, 0 to 1, at a step. None, where no run counts steps, is the end of it."""
        if step is None or step >= self.delay + self.length:
            return 1.0
        return max(0.0, (step - self.delay) / self.length) if self.length else 0.0


def between(initial: tuple[float, float], final: tuple[float, float], share: float) -> tuple[float, float]:
    """The range that lies at `share` of the way from one range to another."""
    low, high = ((1 - share) * begin + share * end for begin, end in zip(initial, final))
    return low, high
