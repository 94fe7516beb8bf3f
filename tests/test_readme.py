"""What README.md and docs/ say is so: commands, tables of defaults, the file tree, links."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from benchmarks.running_app import BROWSERS
from sail.__main__ import app
from sail.settings import LoopSettings

COMMANDS = get_command(app).commands


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[Path, str]:
    """README.md and the pages of docs/."""
    return {
        page: page.read_text(encoding="utf-8")
        for page in (root / "README.md", *sorted(root.glob("docs/*.md")))
    }


@pytest.fixture(scope="module")
def command_line(root: Path) -> str:
    return (root / "docs/command_line.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def own_model(root: Path) -> str:
    return (root / "docs/own_model.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def files(root: Path) -> str:
    return (root / "docs/files.md").read_text(encoding="utf-8")


def blocks(readme: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def options_of(command: str) -> dict[str, object]:
    """Flag -> what the help shows as its default."""
    return {
        flag: param.show_default if isinstance(param.show_default, str) else param.default
        for param in COMMANDS[command].params
        for flag in param.opts
        if flag.startswith("--")
    }


def tree(files: str) -> Iterator[str]:
    """Paths of the file tree, from its indentation."""
    block = next(block for block in blocks(files) if re.match(r"app\.py\b", block))
    folders: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        del folders[depth:]
        yield "".join([*folders, name])
        folders.append(name)


def commands_in(page: str) -> list[tuple[str, str]]:
    """Name and arguments of every command of ours that stands in a block."""
    return re.findall(r"^python -m sail ([\w-]+)(.*)$", "\n".join(blocks(page)), re.MULTILINE)


def test_every_command_that_is_shown_exists_with_its_flags(readme, command_line):
    assert {command for command, _ in commands_in(command_line)} == set(COMMANDS)
    assert commands_in(readme)
    for command, rest in [*commands_in(readme), *commands_in(command_line)]:
        assert flags_in(rest) <= set(options_of(command)), command


def test_the_table_of_the_loops_defaults_is_right(command_line):
    told = dict(re.findall(r"^\| `(--[a-z-]+)` \| (.+) \|$", command_line, re.MULTILINE))
    options = options_of("loop")
    assert told and told == {flag: str(options.get(flag)) for flag in told}


def test_the_table_of_settings_has_all_in_which_the_starter_differs(own_model, root):
    settings = LoopSettings()
    told = f"{settings.prompts_per_round} prompts a round, {settings.num_candidates} candidates"
    assert told in own_model
    row = re.compile(r"^\| `([a-z_.]+)` \|.*\| (.+) \| (.+) \|$", re.MULTILINE)
    table = {name: (starter, others) for name, starter, others in row.findall(own_model)}
    defaults = flat(settings.model_dump(mode="json"))
    of_starter = flat(json.loads((root / "data/starter/sail.json").read_text()))
    own = {
        name: value
        for name, value in of_starter.items()
        # How a model is drawn is told per family.
        if not name.startswith("sampling.") and value != defaults[name]
    }
    assert set(table) == set(own)
    del own["lora.targets"]  # In words there.
    for name, value in own.items():
        assert table[name] == (as_shown(value), as_shown(defaults[name])), name


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def as_shown(value: float | str) -> str:
    return f"`{value}`" if isinstance(value, str) else f"`{value:g}`"


def test_the_apps_flags_exist(readme, root):
    told = {flag for line in re.findall(r"`make app ARGS=\"(.*?)\"`", readme) for flag in flags_in(line)}
    shown = subprocess.run(
        [sys.executable, "app.py", "--help"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told and shown.returncode == 0 and told <= flags_in(shown.stdout)


def test_every_make_target_that_is_shown_exists(pages, root):
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    command = r"(?:^|`)(?:\w+=\S+ )*make ([a-z]+)"
    shown = {target for page in pages.values() for target in re.findall(command, page, re.MULTILINE)}
    assert {"app", "test"} <= shown <= targets


def test_make_installs_no_chromium_where_the_tests_find_one(root):
    rule = re.search(r"^browser:\n\t@for name in (.+); do", (root / "Makefile").read_text(), re.MULTILINE)
    assert rule and tuple(rule[1].split()) == BROWSERS


def test_what_the_file_tree_names_is_there(files, root):
    missing = [path for path in tree(files) if not (root / path).exists()]
    assert missing == []


def test_the_file_tree_names_every_module_or_its_folder(files, root):
    named = set(tree(files))
    leaves = tuple(
        path for path in named if not any(other != path and other.startswith(path) for other in named)
    )
    files = [file for package in ("sail", "annotator") for file in root.glob(f"{package}/**/*.py")]
    modules = [str(file.relative_to(root)) for file in files if file.name != "__init__.py"]
    assert modules and [module for module in modules if not module.startswith(leaves)] == []


def test_links_and_images_lead_somewhere(pages):
    local = [
        (page, link)
        for page, text in pages.items()
        for link in re.findall(r"\]\(([^)#]+)\)", text)
        if "://" not in link
    ]
    assert local and [str(page / link) for page, link in local if not (page.parent / link).exists()] == []


def test_every_page_of_the_documentation_is_listed(readme, pages, root):
    names = {str(page.relative_to(root)) for page in pages} - {"README.md"}
    assert names and [name for name in sorted(names) if f"]({name})" not in readme] == []
