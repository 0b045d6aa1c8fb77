"""Kernels for CPUs in C++: compiled once with the machine's compiler, used wherever they have been, never needed.

`python -m jaxspeech.ops.native` compiles them; the launch scripts do so where there is a compiler. What is compiled is
kept for this user, this kind of processor and this version of the source and of jaxlib.
"""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess

import jax
import jaxlib

from jaxspeech.errors import UserError
from jaxspeech.output import cache_folder

FORWARD, BACKWARD, RECALL = "jaxspeech_attention_forward", "jaxspeech_attention_backward", "jaxspeech_recall"
_FOLDER = pathlib.Path(__file__).parent
_SOURCES = [_FOLDER / "attention.cc", _FOLDER / "recall.cc"]
_HEADER = _FOLDER / "heads.h"
_COMPILERS = ("c++", "g++", "clang++")
# For this very processor. Sums may be fused; nothing else of IEEE arithmetic is given up.
_OPTIONS = ["-O3", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=fast", "-w"]
_PROCESSOR = {
    "x86_64": ["-march=native", "-mprefer-vector-width=512"],
    "aarch64": ["-mcpu=native"],
    "arm64": ["-mcpu=native"],
}


@functools.cache
def load() -> bool:
    """Makes the kernels known to XLA, if they have been compiled for this machine. Returns whether they have."""
    path = library()
    if not path.exists():
        return False
    register(path)
    return True


def library() -> pathlib.Path:
    """Where the compiled kernels are or would be; the name tells what they were compiled from and for."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in [*_SOURCES, _HEADER])
    made_of = f"{source}\n{jaxlib.__version__}\n{_OPTIONS}\n{_processor()}"
    return cache_folder() / "kernels" / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.so"


def compile_to(path: pathlib.Path) -> None:
    """Compiles the kernels with `$CXX`, or the first compiler there is.

    Raises:
        UserError: there is no compiler, or it does not compile them.
    """
    wanted = os.environ.get("CXX")
    compiler = next(filter(None, map(shutil.which, [wanted] if wanted else _COMPILERS)), None)
    if compiler is None:
        where = f"CXX={wanted} is not a program" if wanted else f"none of {', '.join(_COMPILERS)} is installed"
        raise UserError(f"no C++ compiler: {where}; install one, or go without (training on CPUs is slower)")
    options = [*_OPTIONS, *_PROCESSOR.get(platform.machine(), []), f"-I{_FOLDER}", f"-I{jax.ffi.include_dir()}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, *options, *map(str, _SOURCES), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no reason given"]
        raise UserError(f"{compiler} does not compile {_FOLDER}: {lines[0]}; set CXX to another compiler")


def register(path: pathlib.Path) -> None:
    """Makes the kernels in a compiled file known to XLA."""
    kernels = ctypes.CDLL(str(path))
    for target in (FORWARD, BACKWARD, RECALL):
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(kernels, target)), platform="cpu")


def _processor() -> str:
    """The instructions that this processor has, or what else names it."""
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return f"{platform.machine()} {platform.processor()}"
