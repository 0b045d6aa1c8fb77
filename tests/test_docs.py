"""The documentation says what the code does: links, keys and their defaults, commands, flags, files and messages."""

import ast
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jaxspeech import config as configs
from jaxspeech.cli import COMMANDS
from jaxspeech.cli.prepare import NAMES

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
CONFIGURATION = ROOT / "docs" / "configuration.md"
TASK = "jaxspeech.tasks.moonshine.Moonshine"
EXAMPLES = {"section.key", "SECTION.KEY", "a.b"}  # overrides that only show the form

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
FLAG = re.compile(r"--[a-zA-Z][\w-]*(?:\.\w+)*")
HELP = {"NO_COLOR": "1", "COLUMNS": "200"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# Links.


def prose(text: str) -> str:
    """A page without what is code."""
    return SPAN.sub("``", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub names them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = sum(slug == other.rpartition("-")[0] or slug == other for other in found)
        found.append(f"{slug}-{again}" if again else slug)
    return set(found)


@pages
def test_every_link_resolves(page: pathlib.Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target.read_text("utf-8")), f"{page.name}: {link}"


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_link_of_a_notebook_resolves(path: pathlib.Path) -> None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    for link in re.findall(
        r"\]\(([^)\s]+)\)", "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    ):
        target, _, anchor = link.partition("#")
        page = path.parent / target
        assert page.exists(), link
        assert not anchor or anchor in anchors(page.read_text("utf-8")), link


def test_an_anchor_is_named_as_github_names_it() -> None:
    assert anchors("# A `b` — what's *that*?\n## Twice\n## Twice\n") == {"a-b--whats-that", "twice", "twice-1"}


@pages
def test_every_page_of_the_docs_can_be_reached_from_another(page: pathlib.Path) -> None:
    others = "".join(other.read_text("utf-8") for other in PAGES if other != page)
    assert page.name == "README.md" or re.search(rf"(?:docs/|\(){re.escape(page.name)}", others), page.name


# Keys of the config.


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of all tables whose first header cell and second match `heading`, such as "key | default"."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        if " | ".join(head).startswith(heading):
            found += body
    return found


def value(cell: str) -> Any:
    """The value that a cell such as `"text"` shows."""
    return ast.literal_eval(cell.strip("`"))


def same(shown: Any, value: Any) -> bool:
    """Equal and of one type; whole numbers in a mapping may stand for floats."""
    return shown == value and type(shown) is type(value)


def test_every_key_has_a_row_with_its_default() -> None:
    keys = dict(configs.flatten(configs.base(TASK)))
    shown = {key.strip("`"): value(default) for key, default, *_ in rows(CONFIGURATION.read_text("utf-8"), "key | de")}
    assert sorted(shown) == sorted(keys)
    wrong = {key: f"{shown[key]!r}, is {keys[key]!r}" for key in keys if not same(shown[key], keys[key])}
    assert not wrong


def test_every_row_says_what_the_key_means() -> None:
    found = rows(CONFIGURATION.read_text("utf-8"), "key | default")
    assert all(len(row) == 4 and all(row) for row in found)
    names = [row[0] for row in found]
    assert len(names) == len(set(names))


def test_what_each_config_sets_is_in_its_column() -> None:
    text = CONFIGURATION.read_text("utf-8")
    head = re.search(r"^\| key \|((?: `\w+` \|)+)$", text, re.MULTILINE)
    assert head
    columns = re.findall(r"`(\w+)`", head[1])
    assert sorted(columns) == [path.stem for path in CONFIGS]
    defaults = dict(configs.flatten(configs.base(TASK)))
    table = {key.strip("`"): cells for key, *cells in rows(text, f"key | `{columns[0]}`")}
    for place, column in enumerate(columns):
        keys = dict(configs.flatten(configs.load(str(ROOT / "configs" / f"{column}.py"))))
        for key, found in keys.items():
            cell = table[key][place] if key in table else "–"
            if same(found, defaults[key]):
                assert cell == "–", f"{column} does not set {key}"
            elif "…" in cell:
                assert re.fullmatch(".*".join(map(re.escape, value(cell).split("…"))), found), f"{column}: {key}"
            else:
                assert cell != "–", f"{column} sets {key} to {found!r}"
                assert same(value(cell), found), f"{column} sets {key} to {found!r}"
    assert not table.keys() - defaults.keys()


@pages
def test_every_key_that_is_named_exists(page: pathlib.Path) -> None:
    keys = dict(configs.flatten(configs.base(TASK)))
    sections = {key.rpartition(".")[0] for key in keys}
    known = keys.keys() | sections | EXAMPLES
    named = set(re.findall(r"\bconfig\.([a-z]\w*(?:\.\w+)*)(?!\w*\()", page.read_text("utf-8")))
    named -= {name for name in named if name.split(".")[0] in ("json", "py")}  # files
    assert not {name for name in named if name not in known}
    spans = {span for span in SPAN.findall(FENCE.sub("", page.read_text("utf-8"))) if re.fullmatch(r"\w+\.\w+", span)}
    dotted = {span for span in spans if span.split(".")[0] in sections and not re.search(r"\.(py|jsonl?)$", span)}
    assert not dotted - known


@pages
def test_every_override_works(page: pathlib.Path) -> None:
    written = page.read_text("utf-8")
    found = re.findall(r"--config\.([\w.]+)=('[^']*'|[^\s`\\]*)", written)
    found += re.findall(r"`((?:data|model|optim|train|eval|checkpoint|mesh|log)\.[\w.]+)=([^`\s]*)`", written)
    for name, text in found:
        if name in EXAMPLES:
            continue
        if not text or "…" in text:
            assert name in dict(configs.flatten(configs.base(TASK))), name
        else:
            configs.override(configs.base(TASK), name, text.strip("'"))


# Commands.


@functools.cache
def flags(*command: str) -> frozenset[str]:
    """The flags that a command's own help lists."""
    environment = {**os.environ, **HELP, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, *command, "--help"], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120
    )
    assert shown.returncode == 0, f"{command}: {shown.stderr}"
    return frozenset(re.findall(r"^ +(?:-\w, )?(--[\w.-]+)", shown.stdout, re.MULTILINE))


CLI = ("-c", "from jaxspeech.cli import main; main()")
WAYS = {"convert": ("import", "export"), "bench": ("train_step", "loader", "decode"), "prepare": tuple(NAMES)}
OURS: dict[str, list[tuple[str, ...]]] = {
    **{
        f"jaxspeech {name}": [(*CLI, name, *way) for way in [(), *((w,) for w in WAYS.get(name, ()))]]
        for name in COMMANDS
    },
    "python -m jaxspeech.main": [("-m", "jaxspeech.main")],
    "python launch/flags.py": [("launch/flags.py",)],
    "python launch/xmanager.py": [("launch/xmanager.py",)],
}


def flags_of(name: str) -> frozenset[str]:
    """The flags of a command with all that it is followed by, such as `convert import`."""
    return frozenset().union(*(flags(*command) for command in OURS[name]))


def code(page: pathlib.Path) -> Iterator[str]:
    """Lines of shell in fences, joined where they go on, and what stands in backticks."""
    text = re.sub(r"^\| there \|.*\n(?:\|.*\n)+", "", page.read_text("utf-8"), flags=re.MULTILINE)  # another's flags
    for _, language, block in FENCE.findall(text):
        if language in ("bash", "sh"):
            yield from re.sub(r"\\\n\s*", " ", block).splitlines()
    yield from (" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text)))


def commands(page: pathlib.Path) -> Iterator[tuple[str, str]]:
    """(one of OURS, what follows it up to the next command)."""
    for line in code(page):
        for part in re.split(r"&&|\||;|\$\(", line):
            part = re.sub(r"\s#.*", "", part)
            for name in ("python -m jaxspeech.main", "python launch/flags.py", "python launch/xmanager.py"):
                if name in part:
                    own, _, training = part.partition(name)[2].partition(" -- ")
                    yield name, own
                    yield "python -m jaxspeech.main", training
            match = re.search(r"(?:^|\s)jaxspeech ([a-z]\S*)(.*)", part)
            if match and not re.match(r"\W*(pip|import|from)\b", part):
                yield f"jaxspeech {match[1]}", match[2]


@pages
def test_every_command_exists(page: pathlib.Path) -> None:
    assert not {name for name, _ in commands(page)} - OURS.keys()


@pages
def test_every_flag_exists_in_its_command(page: pathlib.Path) -> None:
    for name, rest in commands(page):
        asked = {flag for flag in FLAG.findall(rest) if not flag.startswith("--config.")}
        assert not asked - flags_of(name), f"{page.name}: {name}{rest}"


@pages
def test_every_flag_that_stands_alone_exists_somewhere(page: pathlib.Path) -> None:
    slurm = (ROOT / "launch" / "slurm.sbatch").read_text("utf-8")
    known = frozenset(FLAG.findall(slurm)).union(*map(flags_of, OURS))
    alone = {flag for line in code(page) if line.startswith("--") for flag in FLAG.findall(line)}
    assert not {flag for flag in alone - known if not flag.startswith("--config.")}


def test_every_command_is_documented() -> None:
    text = " ".join(" ".join(page.read_text("utf-8").split()) for page in PAGES)
    assert not [name for name in COMMANDS if f"jaxspeech {name}" not in text]


# Files and messages.


@pages
def test_every_file_that_is_named_exists(page: pathlib.Path) -> None:
    text = page.read_text("utf-8")
    pattern = r"(?<![\w./-])((?:configs|launch|tests|docs|jaxspeech)/[\w./-]*[\w/])"
    for name in re.findall(pattern, FENCE.sub(lambda found: found[0] if found[2] == "bash" else "", text)):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


@functools.cache
def literals() -> list[str]:
    """All strings in the package and in launch/; an f-string has … where a value goes."""
    found = []
    for path in [*sorted((ROOT / "jaxspeech").rglob("*.py")), *sorted((ROOT / "launch").glob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pages
def test_every_message_that_is_quoted_is_one_of_ours(page: pathlib.Path) -> None:
    """Bold in quotation marks, or the first cell of a row with "message" above it; … stands for what differs."""
    text = page.read_text("utf-8")
    quoted = re.findall(r'\*\*"([^"]+)"\*\*', text) + [row[0].strip("`") for row in rows(text, "message")]
    for message in quoted:
        pattern = ".*".join(re.escape(part) for part in " ".join(message.split()).split("…"))
        assert any(re.search(pattern, literal, re.DOTALL) for literal in literals()), f"{page.name}: {message}"


@pages
def test_lines_are_short_and_speak_of_the_project_alone(page: pathlib.Path) -> None:
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        assert len(line) <= 120, f"{page.name}:{number}"
        assert not re.search(r"(?<!\w)(/work/|/tmp/|\.\./shared)", line), f"{page.name}:{number}"
