"""One of two processes that evaluate a set together; run by test_evaluate_hosts.py."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import level_task as levels

from jaxspeech.data.manifest import Collection
from jaxspeech.evaluation.evaluate import Evaluator
from jaxspeech.parallel import sharding
from jaxspeech.parallel.mesh import make_mesh


def main(port: str, process: str, manifest: str) -> None:
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process), cluster_detection_method="deactivate")
    mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    evaluator = Evaluator(levels.Levels(), "dev", Collection.open(manifest), levels.config().eval, mesh)
    result = evaluator.run(sharding.replicate(levels.params(), mesh))
    summary = result.summary()
    del summary["rtfx"]
    print(json.dumps([summary, result.records]))


if __name__ == "__main__":
    main(*sys.argv[1:])
