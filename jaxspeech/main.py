"""`python -m jaxspeech.main --config=configs/X.py --workdir=DIR [--config.section.key=value …]` trains.

Started again on the same DIR it goes on exactly where it was.
"""

import argparse
import os
import sys
import traceback

from jaxspeech.errors import EXIT_REQUEUE, run_or_explain


def main() -> None:
    """Parses the command line, loads the config and trains."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxspeech.main",
        description="Train a model. Started again on the same workdir, training goes on exactly where it was.",
        epilog=f"exit codes: 0 done, 2 something to correct, {EXIT_REQUEUE} saved after SIGTERM (start again)",
    )
    parser.add_argument("--config", required=True, help="a config file, such as configs/moonshine_tiny.py")
    parser.add_argument("--workdir", required=True, help="folder of the run: config, checkpoints, metrics, ledger")
    parser.add_argument(
        "--profile", default="", metavar="A:B", help="write a trace of steps A to B into WORKDIR/profile"
    )
    parser.add_argument("--config.SECTION.KEY", dest="_", metavar="VALUE", help="set a key of the config")
    args, overrides = parser.parse_known_args()
    code = 1
    try:
        code = run_or_explain(lambda: _train(args, overrides))
    finally:
        if code not in (0, EXIT_REQUEUE):
            _leave_the_others(code)
    sys.exit(code)


def _leave_the_others(code: int) -> None:
    """Ends a process of several that has failed, at once: the others are in a collective, and would be waited for."""
    if "jax" not in sys.modules:
        return
    import jax

    if jax.distributed.is_initialized() and jax.process_count() > 1:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _train(args: argparse.Namespace, overrides: list[str]) -> int:
    from jaxspeech import config as configs

    config = configs.load(args.config, overrides)
    configs.validate(config)
    from jaxspeech import train  # jax starts only when the config is known to be sound

    return train.train(config, args.workdir, profile=args.profile)


if __name__ == "__main__":
    main()
