"""Freed memory stays in the process where that was asked for."""

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
from jaxspeech.parallel.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import jax, jax.numpy as jnp
# 96 MiB within the computation: more than an arena of a thread may hold.
f = jax.jit(lambda x: jnp.sort(jnp.sort(x + jnp.arange(2.0**22)) * jnp.arange(2.0**22)).sum())
def touch():
    f(1.0).block_until_ready()
for _ in range(3):  # on a busy machine the first ones overlap less than later ones, and need less memory
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


LARGE = """
import resource, sys
from jaxspeech.parallel.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import numpy as np
def touch():
    np.empty(2**31 + 2**28, np.uint8)[::4096] = 1
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, code=CODE):
    out = subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True, timeout=120)
    return int(out.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_kept_memory_is_not_paged_in_again():
    assert faults("keep") < 0.1 * faults("plain")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_more_than_two_gigabytes_are_kept_too():
    assert faults("keep", LARGE) < 0.1 * faults("plain", LARGE)
