"""`jaxspeech transcribe`: text of audio files of any length."""

import argparse
import contextlib
import json
import math
import sys
from typing import TextIO

from jaxspeech.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Prints the text of one file, or 'path TAB text' for each of several. With --json each file is one JSON object "
        "on a line: audio, text, tokens, duration. A file that cannot be read is named on stderr, the others go "
        "on, and the exit code is 2."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="wav, flac, ogg, opus or mp3; any rate, any length")
    parser.add_argument("--checkpoint", required=True, help="a workdir, DIR@step, or a folder of Hugging Face weights")
    parser.add_argument("--beams", type=int, default=1, help="hypotheses kept in the search (1: greedy)")
    parser.add_argument("--language", help="such as 'ja': for models that decode languages differently")
    parser.add_argument(
        "--longest", type=float, help="seconds that a piece of long audio may have (default: as trained)"
    )
    parser.add_argument(
        "--batch-seconds", type=float, default=160.0, help="audio decoded at once (default: %(default)g)"
    )
    parser.add_argument("--out", help="write what would be printed to this file")


def run(args: argparse.Namespace) -> None:
    if args.beams < 1:
        raise UserError(f"--beams {args.beams}: give 1 (greedy) or more")
    if args.longest is not None and not 1 <= args.longest < math.inf:
        raise UserError(f"--longest {args.longest:g}: give 1 s or more")
    if not 0 < args.batch_seconds < math.inf:
        raise UserError(f"--batch-seconds {args.batch_seconds:g}: give more than 0")

    import jax
    from tqdm import tqdm

    from jaxspeech.cli.ready import ready
    from jaxspeech.evaluation import long_audio
    from jaxspeech.evaluation.transcribe import Transcriber

    task, params, config, mesh = ready(args.checkpoint)
    longest = args.longest or max(1.0, min(long_audio.LONGEST, config.data.max_seconds))
    transcriber = Transcriber(
        task,
        params,
        mesh,
        beams=args.beams,
        longest=longest,
        batch_seconds=args.batch_seconds,
        language=args.language,
        threads=config.data.threads,
    )
    failed, seconds = [], 0.0
    hidden = not sys.stderr.isatty()
    total = None if hidden else sum(map(_seconds, args.files))
    with _output(args.out) as out, jax.set_mesh(mesh), tqdm(total=total, unit="s", disable=hidden, leave=False) as bar:
        for transcript in transcriber.transcripts(args.files, bar.update):
            if transcript.error:
                failed.append(transcript.audio)
                tqdm.write(f"error: {transcript.audio}: {transcript.error}", file=sys.stderr)
                continue
            seconds += transcript.duration
            text = " ".join(transcript.text.split())
            if args.json:
                line = {"audio": transcript.audio, "text": text, "tokens": transcript.tokens}
                text = json.dumps(line | {"duration": transcript.duration}, ensure_ascii=False)
            elif len(args.files) > 1:
                text = f"{transcript.audio}\t{text}"
            with bar.external_write_mode(file=out):
                print(text, file=out, flush=True)
    done = len(args.files) - len(failed)
    if done:
        speed = f", RTFx {transcriber.audio_seconds / transcriber.seconds:.1f}" if transcriber.seconds else ""
        print(f"{done} file{'s' * (done != 1)}, {seconds:.1f} s of audio{speed}", file=sys.stderr)
    if failed:
        raise UserError(f"{len(failed)} of {len(args.files)} files could not be transcribed: {', '.join(failed[:5])}")


def _output(path: str | None) -> contextlib.AbstractContextManager[TextIO]:
    if path is None:
        return contextlib.nullcontext(sys.stdout)
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {path} cannot be written: {error.strerror or error}") from error


def _seconds(path: str) -> float:
    """From the header, for the progress bar."""
    from jaxspeech.data import audio

    try:
        return audio.probe(path)[0]
    except audio.AudioError:
        return 0.0
