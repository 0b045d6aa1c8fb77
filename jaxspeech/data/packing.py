"""Several utterances a row of fixed length: first-fit-decreasing in windows over an order.

Each window of 512 utterances is sorted by length and placed, longest first: at first into the emptiest of as many rows
as the window will need, so that every row gets some long ones, and once these are 80 % full into the first row that
still has audio, tokens and places for it. Plain first fit would leave rows of many short utterances for the end, which
run out of places (4.2 % waste instead of 0.4 % at 16 places on a mix of read and conversational speech).

All windows are packed side by side in lockstep, so that numpy does the work: a million utterances take seconds. Rows
that stay poorly filled (mostly the last of each window) are taken apart and packed again among themselves.
"""

import math

import numpy as np

from jaxspeech.data.buckets import rows_for
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.errors import UserError

WINDOW = 512
SPREAD_TO = 0.8  # rows are filled evenly up to this share, then one after the other
REPACK_BELOW = 0.97  # rows filled less than this are packed once more


def choose_row(
    lengths: Lengths,
    kept: np.ndarray,
    *,
    row_seconds: float,
    row_segments: int,
    batch_seconds: float = 0.0,
    batch_rows: int = 0,
    row_multiple: int = 1,
    sample_rate: int = 16_000,
    stride: int = 384,
) -> tuple[Shape]:
    """The one shape of packed batches; its token edge is chosen so that audio is what fills a row.

    Args:
        lengths: of all utterances.
        kept: record numbers (int) or a mask (bool) of those that are trained on; all of them will fit.
        row_seconds: length of a row; rounded down to whole strides.
        row_segments: utterances that a row holds at most.
        batch_seconds: audio of a global batch, padding included, in seconds; or
        batch_rows: rows of a global batch. Exactly one of the two is given.
        row_multiple: rows are a multiple of this; see `buckets.rows_for` for batches too small for that.
        sample_rate: samples a second.
        stride: every utterance starts on a multiple of this many samples.

    Raises:
        UserError: nothing is kept, an utterance is longer than a row, or not exactly one batch size is given.
    """
    if (batch_seconds > 0) == (batch_rows > 0):
        raise UserError("give exactly one of data.batch_seconds and data.batch_rows (the other 0)")
    lengths = lengths[kept]
    if len(lengths) == 0:
        raise UserError("no utterance is left to train on; see data.min_seconds, data.max_seconds and data.max_tokens")
    samples = int(row_seconds * sample_rate) // stride * stride
    longest = int(lengths.audio.max())
    if longest > samples:
        raise UserError(
            f"data.row_seconds = {row_seconds:g} is shorter than an utterance of {longest / sample_rate:.2f} s; "
            "raise it or lower data.max_seconds"
        )
    sample = lengths[np.linspace(0, len(lengths) - 1, min(len(lengths), 64 * WINDOW)).astype(int)]
    unbound = Shape(1, samples, int(sample.text.sum()) + 1, row_segments)
    row, _ = pack(sample, np.arange(len(sample)), unbound, stride=stride)
    per_row = np.bincount(row, weights=sample.text)
    # 95 % of rows would fit by chance; first fit finds other company for the rest.
    tokens = max(int(np.quantile(per_row, 0.95)), int(lengths.text.max()))
    tokens = math.ceil(tokens / 8) * 8
    rows = batch_rows or rows_for(samples, batch_seconds * sample_rate, row_multiple)
    return (Shape(rows, samples, tokens, row_segments),)


def pack(
    lengths: Lengths, order: np.ndarray, shape: Shape, *, stride: int, window: int = WINDOW
) -> tuple[np.ndarray, int]:
    """Assigns rows to the utterances `order` (record numbers, repeats allowed), which must each fit in `shape`.

    Returns:
        int64[len(order)], the row of each, and the number of rows. Rows are never empty.
    """
    if len(order) == 0:  # a weight below 1 can leave an epoch without anyone
        return np.zeros(0, np.int64), 0
    slots = np.ceil(lengths.audio[order] / stride).astype(np.int32)
    tokens = lengths.text[order].astype(np.int32)
    limits = shape.samples // stride, shape.tokens, shape.segments
    row, rows = _first_fit(slots, tokens, limits, window)

    # Once more, over the utterances of the rows that have most room left.
    filled = np.bincount(row, weights=slots, minlength=rows)
    loose = filled < REPACK_BELOW * limits[0]
    again = np.flatnonzero(loose[row])
    if 0 < len(again) < len(row):
        kept_rows = np.cumsum(~loose) - 1
        repacked, extra = _first_fit(slots[again], tokens[again], limits, window)
        if kept_rows[-1] + 1 + extra < rows:
            row = kept_rows[row]
            row[again] = kept_rows[-1] + 1 + repacked
            rows = int(kept_rows[-1]) + 1 + extra
    return row, rows


def _first_fit(
    slots: np.ndarray, tokens: np.ndarray, limits: tuple[int, int, int], window: int
) -> tuple[np.ndarray, int]:
    """Spread, then first-fit-decreasing within windows; all windows advance together, one utterance a step."""
    n = len(slots)
    windows = max(1, math.ceil(n / window))
    members = np.full((windows, window), -1)  # the i-th longest utterance of each window; -1: none
    members.reshape(-1)[:n] = np.arange(n)
    length = np.where(members >= 0, slots[members], 0)
    expected = np.max(
        [
            -(-length.sum(1) // limits[0]),
            -(-np.where(members >= 0, tokens[members], 0).sum(1) // limits[1]),
            -(-(members >= 0).sum(1) // limits[2]),
        ],
        axis=0,
    )
    by_length = np.argsort(np.where(members >= 0, -length, 1), axis=1, kind="stable")
    members = np.take_along_axis(members, by_length, axis=1)

    room, token_room, places = (np.full((windows, window + 1), limit, np.int32) for limit in limits)
    columns = np.arange(window + 1)
    opened = expected.copy()
    row = np.empty(n, np.int64)
    full = int(limits[0] * (1 - SPREAD_TO))
    for step in range(window):
        here = np.flatnonzero(members[:, step] >= 0)  # the last window may be short
        if len(here) == 0:
            break
        utterance = members[here, step]
        need, need_tokens = slots[utterance], tokens[utterance]
        wide = int(opened.max()) + 1
        fits = (room[here, :wide] >= need[:, None]) & (token_room[here, :wide] >= need_tokens[:, None])
        fits &= places[here, :wide] > 0
        spread = np.where(fits & (columns[:wide] < expected[here, None]), room[here, :wide], -1)
        chosen = np.where(spread.max(1) - need >= full, spread.argmax(1), fits.argmax(1))
        room[here, chosen] -= need
        token_room[here, chosen] -= need_tokens
        places[here, chosen] -= 1
        opened[here] = np.maximum(opened[here], chosen + 1)
        row[utterance] = here * (window + 1) + chosen
    _, row = np.unique(row, return_inverse=True)
    return row, int(row.max()) + 1
