"""What README.md and docs/files.md say is so: commands, the table of defaults, the file tree."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from benchmarks.running_app import BROWSERS
from sail.__main__ import app
from sail.config import LoopSettings

COMMANDS = get_command(app).commands


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


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


def test_every_command_in_the_readme_exists_with_its_flags(readme):
    shown = re.findall(r"^python -m sail ([\w-]+)(.*)$", "\n".join(blocks(readme)), re.MULTILINE)
    assert {command for command, _ in shown} == set(COMMANDS)
    for command, rest in shown:
        assert flags_in(rest) <= set(options_of(command)), command


def test_the_table_of_the_loops_defaults_is_right(readme):
    told = dict(re.findall(r"^\| `(--[a-z-]+)` \| (.+) \|$", readme, re.MULTILINE))
    options = options_of("loop")
    assert told and told == {flag: str(options.get(flag)) for flag in told}


def test_what_the_default_preset_has_is_right(readme):
    settings = LoopSettings()
    told = (
        f"{settings.prompts_per_round} prompts a round, {settings.num_candidates} candidates "
        f"and {settings.optimisation.steps} steps"
    )
    assert told in readme
    other = f"loss at beta {settings.loss.beta:.0f} in place of the mirrored one"
    assert settings.loss.objective == "dpo" and other in readme


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


def test_every_make_target_in_the_readme_exists(readme, root):
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", readme)) <= targets


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


def test_links_and_images_lead_somewhere(readme, root):
    local = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert local and [link for link in local if not (root / link).exists()] == []
