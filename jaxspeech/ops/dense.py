"""The matrix product of a dense layer, laid out so that no product needs a transposed copy of activations."""

import math
from typing import Any

import jax


def flat_dot_general(
    x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None, preferred_element_type: Any = None
) -> jax.Array:
    """`lax.dot_general` of [*batch, *inputs] with [*inputs, *outputs], for `dot_general=` of linen's dense layers.

    Everything before the inputs is one axis within: the kernel's gradient then sums over that axis alone. Summing over
    rows and time apart, the compiler writes out a transposed copy of the activations first, which on a CPU costs more
    than half of the product itself.
    """
    (left, right), (left_batch, right_batch) = dimension_numbers
    count = len(left)
    if left_batch or right_batch or tuple(left) != tuple(range(x.ndim - count, x.ndim)):
        raise ValueError(f"a dense layer sums over the last axes of its input, not over {left}")
    if tuple(right) != tuple(range(count)):
        raise ValueError(f"a dense layer sums over the first axes of its kernel, not over {right}")
    batch, outputs = x.shape[: x.ndim - count], kernel.shape[count:]
    inputs = math.prod(kernel.shape[:count])
    y = jax.lax.dot_general(
        x.reshape(-1, inputs),
        kernel.reshape(inputs, -1),
        (((1,), (0,)), ((), ())),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return y.reshape(*batch, *outputs)
