"""Writes schedule_free.npz: 500 updates of `AdamWScheduleFree` (facebookresearch/schedule_free) in fp64.

Once with its own r = 0, once with r = 3.

pip install torch schedulefree==1.4.1 && python tests/golden/schedule_free.py
"""

import pathlib

import numpy as np
import schedulefree
import torch

SETTINGS = {"lr": 3e-3, "betas": (0.9, 0.99), "eps": 1e-8, "warmup_steps": 60}
DECAY, CLIP, STEPS = 0.1, 1.0, 500
POWERS = (0, 3)


def main() -> None:
    draw = np.random.default_rng(0)
    kernel, bias = draw.normal(size=(4, 3)), draw.normal(size=3)
    curvature = {"kernel": draw.uniform(0.1, 3, size=(4, 3)), "bias": draw.uniform(0.1, 3, size=3)}
    noise = {"kernel": draw.normal(size=(STEPS, 4, 3)), "bias": draw.normal(size=(STEPS, 3))}
    saved = {f"start/{name}": value for name, value in (("kernel", kernel), ("bias", bias))}
    saved |= {f"curvature/{name}": value for name, value in curvature.items()}
    saved |= {f"noise/{name}": value for name, value in noise.items()}
    for power in POWERS:
        weights = {name: torch.nn.Parameter(torch.tensor(saved[f"start/{name}"])) for name in ("kernel", "bias")}
        groups = [
            {"params": [weights["kernel"]], "weight_decay": DECAY},
            {"params": [weights["bias"]], "weight_decay": 0.0},
        ]
        optimizer = schedulefree.AdamWScheduleFree(groups, r=power, **SETTINGS)
        optimizer.train()
        for step in range(STEPS):
            for name, weight in weights.items():
                weight.grad = torch.tensor(curvature[name]) * weight.detach() + torch.tensor(noise[name][step])
            torch.nn.utils.clip_grad_norm_(weights.values(), CLIP, foreach=False)
            optimizer.step()
            if step + 1 in (1, 2, 60, 61, STEPS):
                for which, mode in (("y", optimizer.train), ("x", optimizer.eval)):
                    mode()
                    saved |= {
                        f"r{power}/{which}/{step + 1}/{name}": value.detach().numpy().copy()
                        for name, value in weights.items()
                    }
                optimizer.train()
    np.savez_compressed(pathlib.Path(__file__).with_suffix(".npz"), **saved)


if __name__ == "__main__":
    main()
