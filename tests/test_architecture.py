"""The rules of the house: which module may import which, how long files are, what starts no backend."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "jaxspeech"
FILES = sorted(PACKAGE.rglob("*.py"))

# layer → what it may import of jaxspeech, beside itself and the leaves that everything may
LEAVES = {"errors", "output", "params"}
ALLOWED = {
    name: set(layers.split())
    for name, layers in {
        "main": "config train",
        "train": "audit checkpoint compile config data evaluation observe optim parallel prepare step task",
        "audit": "data prepare task",
        "prepare": "checkpoint data task",
        "compile": "data optim parallel step task",
        "step": "task",
        "config": "task",
        "task": "data",
        "tasks": "config data evaluation interop models ops task",
        "models": "nn ops",
        "nn": "ops",
        "ops": "",
        "data": "",
        "corpora": "data",
        "cleaning": "data evaluation",
        "optim": "task",
        "parallel": "data task",
        "checkpoint": "config data interop optim step task",
        "interop": "data models nn task",
        "evaluation": "data parallel step task",
        "observe": "config data evaluation",
    }.items()
}


def layer(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


@pytest.mark.parametrize("path", [f for f in FILES if layer(f) in ALLOWED], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = layer(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "jaxspeech" and len(parts) > 1:
            assert parts[1] in ALLOWED[own] | LEAVES | {own, "__version__"}, f"{own} imports {name}"


@pytest.mark.parametrize("path", [f for f in FILES if layer(f) in ("data", "corpora")], ids=lambda p: p.name)
def test_data_imports_no_jax(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"jax", "flax", "optax", "orbax"}


def test_no_task_imports_another():
    for path in (PACKAGE / "tasks").glob("*.py"):
        others = {name for name in imported(path) if name.startswith("jaxspeech.tasks.")}
        assert not others, f"{path.name} imports {others}"


def test_no_module_imports_the_loop():
    importers = {layer(f) for f in FILES if "jaxspeech.train" in imported(f)}
    assert importers <= {"main"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_has_one_subject_and_says_it(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{path} says nothing about itself"
    assert text.count("\n") <= 400, f"{path} is two files"
    assert path.name not in ("utils.py", "common.py", "helpers.py", "misc.py")


def test_the_package_imports_fast_and_without_jax():
    modules = "jaxspeech, jaxspeech.data.manifest, jaxspeech.data.plan, jaxspeech.data.audio"
    code = f"import sys, {modules}; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "False"
