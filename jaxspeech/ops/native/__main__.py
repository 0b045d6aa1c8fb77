"""`python -m jaxspeech.ops.native` compiles the kernels for this machine, tries them and keeps them."""

import os
import pathlib
import sys
import tempfile

from jaxspeech.errors import UserError, run_or_explain


def main() -> None:
    """Prints where the kernels are; leaves with 2 and one line where they cannot be made."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.exit(run_or_explain(_make))


def _make() -> None:
    from jaxspeech.ops import native

    path = native.library()
    if path.exists():
        print(f"compiled before: {path}")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = pathlib.Path(folder) / path.name
            native.compile_to(made)
            native.register(made)
            _try()
            made.replace(path)  # whole, or not there
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; set XDG_CACHE_HOME to another folder") from error
    print(f"compiled: {path}")


def _try() -> None:
    """Compares the kernels with the definition: a compiler that errs must not be found out by a training run."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxspeech.ops import recall
    from jaxspeech.ops.attention import reference
    from jaxspeech.ops.attention_native import attend

    draw = np.random.default_rng(0).standard_normal
    query, key, value, d_mixed = (draw((2, 70, 3, 36), np.float32) for _ in range(4))
    segments = np.repeat([[1, 2, 0], [1, 1, 1]], [30, 25, 15], axis=1).astype(np.int32)

    def both(function, causal):
        def mix(query, key, value):
            return function(query, key, value, segments, segments, causal, 0.2)

        mixed, backward = jax.vjp(mix, query, key, value)
        return mixed, *backward(jnp.asarray(d_mixed))

    def kernel(query, key, value, query_segments, key_segments, causal, scale):
        return attend((causal, scale), query, key, value, query_segments, key_segments)

    cached = query[:, 0], key.transpose(0, 2, 3, 1), value.swapaxes(1, 2), segments, 0.2
    pairs = [(recall.native(*cached), recall.plain(*cached))]
    for causal in (False, True):
        pairs += zip(both(kernel, causal), both(reference, causal))
    for ours, right in pairs:
        if not np.allclose(ours, right, rtol=1e-4, atol=1e-5):
            error = np.abs(np.asarray(ours) - np.asarray(right)).max()
            raise UserError(
                f"the compiled kernels are wrong by {error:.1g} and were not kept; set CXX to another compiler"
            )


if __name__ == "__main__":
    main()
