import jax
import numpy as np

from jaxspeech.observe import compilations
from jaxspeech.observe.compilations import CompilationCounter


def test_a_program_counts_once_and_a_cached_call_not_at_all():
    step = jax.jit(lambda x: x * 3 + 1)
    short, long = np.ones(3, np.float32), np.ones(4, np.float32)
    with CompilationCounter() as counter:
        jax.block_until_ready(step(short))
        assert counter.count == 1
        jax.block_until_ready(step(short))
        assert counter.count == 1
        jax.block_until_ready(step(long))
        assert counter.count == 2
    assert counter.seconds > 0
    assert len(counter.names) == 2


def test_a_shape_that_was_compiled_ahead_counts_then_and_not_when_it_runs():
    x = np.ones(5, np.float32)
    with CompilationCounter() as counter:
        executable = jax.jit(lambda x: x - 2).lower(jax.ShapeDtypeStruct(x.shape, x.dtype)).compile()
        assert counter.count == 1
        for _ in range(3):
            jax.block_until_ready(executable(x))
        assert counter.count == 1


def test_the_function_that_compiled_is_named():
    def odd_one_out(x):
        return x / 7

    with CompilationCounter() as counter:
        jax.jit(odd_one_out)(np.ones(2, np.float32))
    assert "odd_one_out" in counter.names[0]


def test_it_counts_no_more_once_it_is_closed():
    counter = CompilationCounter()
    counter.close()
    counter.close()
    jax.jit(lambda x: x + 11)(np.ones(6, np.float32))
    assert counter.count == 0


def test_two_count_side_by_side():
    with CompilationCounter() as outer:
        with CompilationCounter() as inner:
            jax.jit(lambda x: x + 12)(np.ones(6, np.float32))
        jax.jit(lambda x: x + 13)(np.ones(6, np.float32))
    assert (outer.count, inner.count) == (2, 1)


def test_it_closes_where_its_listener_was_taken_away():
    counter = CompilationCounter()
    jax.monitoring.unregister_event_duration_listener(counter._heard)
    counter.close()
    with CompilationCounter() as other:
        jax.jit(lambda x: x + 14)(np.ones(6, np.float32))
    assert (counter.count, other.count) == (0, 1)


def test_the_event_has_the_name_that_jax_gives_it():
    from jax._src import dispatch

    assert dispatch.BACKEND_COMPILE_EVENT == compilations._EVENT
