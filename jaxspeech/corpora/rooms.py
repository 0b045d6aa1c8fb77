"""`jaxspeech prepare rooms`: impulse responses of simulated rooms, for `data.augment.room`.

Shoebox rooms by the image source method (Allen and Berkley, J. Acoust. Soc. Am. 65, 1979), computed by pyroomacoustics
(the extra `rooms`). They are computed once into a manifest, like recorded ones: training itself needs no simulator.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib.util
import multiprocessing
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from jaxspeech.corpora.pool import default_processes, live_with_the_parent
from jaxspeech.data import audio
from jaxspeech.data.lines import write_manifest
from jaxspeech.data.room import decay_time
from jaxspeech.errors import UserError

_SMALLEST, _LARGEST = (3.0, 2.5, 2.4), (10.0, 8.0, 4.0)  # m: length, width, height; living rooms to meeting rooms
_WALL = 0.5  # m that nobody comes closer to a wall than
_HEIGHTS = (0.6, 1.9)  # m: of mouths and microphones
_NEAREST = 0.2  # m between the two
_ORDER = 80  # reflections of a ray at most: what follows lies more than 40 dB below
_LEAD = 40  # samples kept before the direct sound: half of the filter that places it between two samples


@dataclasses.dataclass(frozen=True)
class Room:
    """A room with one speaker and one microphone, lengths in m, `rt60` in s (what Sabine's formula is asked for)."""

    size: tuple[float, float, float]
    rt60: float
    absorption: float
    order: int
    source: tuple[float, float, float]
    microphone: tuple[float, float, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of DIR/rooms.jsonl and its audio")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="rooms (1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed gives other rooms (0)")
    parser.add_argument("--sample-rate", type=int, default=16000, metavar="HZ", help="16000")
    parser.add_argument(
        "--rt60", type=float, nargs=2, default=(0.1, 0.8), metavar=("LOW", "HIGH"), help="seconds (0.1 0.8)"
    )
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="that simulate (one a core, up to 16)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Simulates all rooms; the same seed gives the same ones, however many processes there are."""
    if importlib.util.find_spec("pyroomacoustics") is None:
        raise UserError("simulating rooms needs pyroomacoustics: pip install 'jaxspeech[rooms]'")
    low, high = args.rt60
    if not 0.05 <= low <= high <= 2.0 or args.count < 1:
        raise UserError(
            f"--rt60 {low:g} {high:g} --count {args.count}: give 0.05 ≤ LOW ≤ HIGH ≤ 2, and at least 1 room"
        )
    folder = pathlib.Path(args.out).absolute()
    one = functools.partial(_write, folder, args.seed, (low, high), args.sample_rate)
    processes = min(args.processes or default_processes(), args.count)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context, live_with_the_parent) as pool:
        made = tqdm(pool.map(one, range(args.count), chunksize=4), "rooms", args.count, unit=" rooms", disable=None)
        rows = list(made)
    manifest = folder / "rooms.jsonl"
    write_manifest(manifest, rows)
    times = [row["rt60"] for row in rows]
    print(
        f"{manifest}: {len(rows)} rooms, RT60 {min(times):.2f} to {max(times):.2f} s, median {np.median(times):.2f} s"
    )
    return {"manifest": str(manifest), "rooms": len(rows), "rt60": [min(times), float(np.median(times)), max(times)]}


def draw(rng: np.random.Generator, rt60: tuple[float, float]) -> Room:
    """A room with places for mouth and microphone; drawn again where no walls give a room of that size that RT60."""
    import pyroomacoustics

    while True:
        size = rng.uniform(_SMALLEST, _LARGEST)
        wanted = float(rng.uniform(*rt60))
        low = np.array([_WALL, _WALL, _HEIGHTS[0]])
        high = np.array([size[0] - _WALL, size[1] - _WALL, min(_HEIGHTS[1], size[2] - _WALL)])
        source, microphone = rng.uniform(low, high), rng.uniform(low, high)
        try:
            absorption, order = pyroomacoustics.inverse_sabine(wanted, size)
        except ValueError:
            continue
        if np.linalg.norm(source - microphone) >= _NEAREST:
            order = min(int(order), _ORDER)
            return Room(_point(size), wanted, float(absorption), order, _point(source), _point(microphone))


def _point(place: np.ndarray) -> tuple[float, float, float]:
    x, y, z = map(float, place)
    return x, y, z


def simulate(room: Room, sample_rate: int) -> Float[np.ndarray, " taps"]:
    """Its impulse response: from just before the direct sound to where 60 dB have gone; the highest peak is 0.9."""
    import pyroomacoustics

    box = pyroomacoustics.ShoeBox(
        room.size, fs=sample_rate, materials=pyroomacoustics.Material(room.absorption), max_order=room.order
    )
    box.add_source(room.source)
    box.add_microphone(room.microphone)
    box.compute_rir()
    response = np.asarray(box.rir[0][0], np.float32)
    left = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]  # energy that is still to come
    end = int(np.searchsorted(-left, -left[0] * 1e-6))
    begin = max(int(np.argmax(np.abs(response))) - _LEAD, 0)
    response = response[begin : max(end, begin + 2 * _LEAD)]
    return response * np.float32(0.9 / np.abs(response).max())


def _write(folder: pathlib.Path, seed: int, rt60: tuple[float, float], sample_rate: int, number: int) -> dict[str, Any]:
    room = draw(np.random.default_rng((seed, number)), rt60)
    response = simulate(room, sample_rate)
    name = f"room-{number:06d}"
    path = folder / "rooms" / f"{number // 1000:03d}" / f"{name}.wav"
    audio.write(path, response, sample_rate)
    measured = decay_time(response, sample_rate)
    return {
        "id": name,
        "audio": str(path),
        "text": "",
        "duration": len(response) / sample_rate,
        "rt60": round(measured if np.isfinite(measured) else room.rt60, 3),
        "distance": round(float(np.linalg.norm(np.subtract(room.source, room.microphone))), 3),
        "room": [round(length, 2) for length in room.size],
    }
