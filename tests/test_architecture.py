"""Who may import whom. Reads the source, so that an import inside a function counts as well."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

LAYERS: tuple[tuple[str, ...], ...] = (
    ("sail.records",),
    ("sail.config", "sail.model_ref"),
    ("sail.files", "sail.requests", "sail.settings"),
    (
        "sail.runfolder",
        "sail.progress",
        "sail.pairing",
        "sail.mixup",
        "sail.rounds",
        "sail.cost",
        "sail.annotate",
    ),
    ("sail.backbones", "sail.backbones.*", "sail.distributed"),
    ("sail.scorers",),
    ("sail.policy", "sail.memory"),
    ("sail.loss", "sail.reward"),
    ("sail.judged", "sail.candidates"),
    ("sail.sampling", "sail.monitors", "sail.proposing", "sail.samples", "sail.comparing", "sail.export"),
    ("sail.batches",),
    ("sail.training",),
    ("sail.running",),
    ("sail.loop",),
    ("sail.evaluating", "sail.importing"),
    ("sail.__main__",),
    (
        "annotator.audit",
        "annotator.faults",
        "annotator.launcher",
        "annotator.models",
        "annotator.processes",
        "annotator.rows",
        "annotator.writer",
        "annotator.migrations",
    ),
    ("annotator.store", "annotator.store.*"),
    (
        "annotator.assignment",
        "annotator.ordering",
        "annotator.jobs",
        "annotator.estimates",
        "annotator.looks",
        "annotator.winrate",
        "annotator.runs",
        "annotator.preferences",
        "annotator.history",
    ),
    ("annotator.projects",),
    (
        "annotator.guard",
        "annotator.routes",
        "annotator.routes.*",
        "annotator.tabs",
        "annotator.tabs.*",
    ),
    ("annotator.server",),
    ("app",),
)
"""From the ground up: a module imports from layers below its own, or from its own without circles."""

UNKNOWN_TO_BACKBONES = (2, 3)
"""Layers below their own that are about runs."""
ANYWHERE = ("sail", "annotator")
"""The packages themselves: a docstring and a version."""

TORCH_FREE = (
    "sail.records", "sail.config", "sail.model_ref", "sail.requests", "sail.settings", "sail.files",
    "sail.runfolder", "sail.progress", "sail.rounds", "sail.cost", "sail.mixup", "sail.pairing",
)  # fmt: skip
CONTRACT = (
    "sail", "sail.records", "sail.config", "sail.model_ref", "sail.requests", "sail.settings", "sail.files",
    "sail.runfolder", "sail.rounds", "sail.cost", "sail.mixup",
)  # fmt: skip
"""All of sail that the app may know."""

DOORS: dict[str, tuple[str, ...]] = {
    "torch": ("sail.*",),
    "diffusers": ("sail.backbones", "sail.backbones.*"),
    "transformers": ("sail.backbones", "sail.backbones.*", "sail.scorers"),
    "peft": ("sail.policy",),
    "accelerate": ("sail.distributed",),
    "sqlite_utils": ("annotator.store.*", "annotator.migrations"),
    "sqlite3": ("annotator.store.*", "annotator.migrations"),
    "gradio": ("annotator.tabs", "annotator.tabs.*", "annotator.server"),
    "fastapi": ("annotator.*",),
}
"""The only modules that may import a library."""

HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate")


def is_one_of(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def sources_under(root: Path) -> dict[str, str]:
    """Module name -> source, for both packages and app.py."""
    files = [*root.glob("sail/**/*.py"), *root.glob("annotator/**/*.py"), *root.glob("app.py")]
    names = {file: ".".join(file.relative_to(root).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file.read_text(encoding="utf-8") for file, name in names.items()}


def imports_of(name: str, sources: dict[str, str]) -> frozenset[str]:
    """Full names of what a module imports, `from package import module` as the module."""
    return _imports_in(sources[name], name, frozenset(sources))


@cache
def _imports_in(source: str, name: str, modules: frozenset[str]) -> frozenset[str]:
    nodes = ast.walk(ast.parse(source))
    return frozenset(found for node in nodes for found in _imported(node, name, modules)) - {name}


def _imported(node: ast.AST, name: str, modules: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        is_package = any(other.startswith(f"{name}.") for other in modules)
        base = name.split(".")[: (1 if is_package else 0) - node.level or None] if node.level else []
        origin = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            full = f"{origin}.{alias.name}"
            yield full if full in modules else origin
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        yield from (str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def layer_of(name: str) -> int | None:
    return next((level for level, names in enumerate(LAYERS) if is_one_of(name, names)), None)


def faults(sources: dict[str, str]) -> list[str]:
    """Every forbidden import, as a sentence."""
    found = []
    for name in sorted(set(sources) - set(ANYWHERE)):
        if layer_of(name) is None:
            found.append(f"{name} has no place in LAYERS.")
            continue
        for imported in sorted(imports_of(name, sources)):
            found += [f"{name} imports {imported}: {why}." for why in objections(name, imported)]
    return found


def objections(name: str, imported: str) -> Iterator[str]:
    package = imported.split(".")[0]
    if package in DOORS and not is_one_of(name, DOORS[package]):
        yield f"only {', '.join(DOORS[package])} may"
    if package in HEAVY and name in TORCH_FREE:
        yield "it is torch-free"
    if package not in ("sail", "annotator", "app"):
        return
    if not name.startswith("sail.") and package == "sail" and imported not in CONTRACT:
        yield "the app knows only the contract"
    if name.startswith("sail.backbones") and layer_of(imported) in UNKNOWN_TO_BACKBONES:
        yield "a backbone knows records, config and model_ref alone"
    own, other = layer_of(name), layer_of(imported)
    if imported not in ANYWHERE and (own is None or other is None or other > own):
        yield "it lies above"


def circles(sources: dict[str, str]) -> list[str]:
    graph = {name: set(imports_of(name, sources) & set(sources) - set(ANYWHERE)) for name in sources}
    # A package that offers what its modules hold is no circle.
    for name in graph:
        graph[name] = {other for other in graph[name] if not name.startswith(f"{other}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def modules_loaded_by(name: str, root: Path) -> set[str]:
    script = f"import json, sys, {name}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def sources(root: Path) -> dict[str, str]:
    return sources_under(root)


def test_every_import_follows_the_arrows(sources):
    assert faults(sources) == []


def test_no_module_imports_itself_through_others(sources):
    assert circles(sources) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("sail.records", "import torch"),
        ("sail.records", "from sail import config"),
        ("sail.rounds", "def later():\n    import torch.nn as nn"),
        ("sail.mixup", "from sail.loss import diffusion_dpo"),
        ("sail.loss", "from sail.training import train"),
        ("sail.loss", "from .policy import Policy; from .sampling import draw"),
        ("sail.backbones.base", "from sail.policy import Policy"),
        ("sail.backbones.base", "from sail.runfolder import publish"),
        ("sail.policy", "from diffusers import UNet2DConditionModel"),
        ("sail.training", "import peft"),
        ("sail.training", "from transformers import CLIPTokenizer"),
        ("sail.training", "from accelerate import Accelerator"),
        ("sail.sampling", "import sqlite_utils"),
        ("sail.rounds", "from annotator import store"),
        ("sail.runfolder", "import gradio as gr"),
        ("annotator.store", "import torch"),
        ("annotator.store", "def later():\n    from sail.training import train"),
        ("annotator.store", "from sail import loss"),
        ("annotator.store", "from annotator.assignment import next_pair"),
        ("annotator.store.labels", "from gradio import Blocks"),
        ("annotator.assignment", "import sqlite_utils"),
        ("annotator.assignment", "import importlib\nimportlib.import_module('torch')"),
    ],
)
def test_a_forbidden_import_is_found(sources, name, line):
    assert name in sources
    changed = {**sources, name: f"{sources[name]}\n{line}\n"}
    assert [fault for fault in faults(changed) if fault.startswith(f"{name} imports ")]


def test_a_circle_is_found(sources):
    changed = {**sources, "sail.records": f"{sources['sail.records']}\nimport sail.runfolder\n"}
    assert {"sail.records", "sail.runfolder"} <= set(circles(changed))


def test_a_module_without_a_place_is_found(sources):
    assert "sail.helpers has no place in LAYERS." in faults({**sources, "sail.helpers": ""})


def test_every_place_has_a_module(sources):
    places = [name for names in LAYERS for name in names]
    assert [place for place in places if not any(fnmatch(name, place) for name in sources)] == []


def test_importing_the_app_leaves_torch_unloaded(root):
    loaded = modules_loaded_by("annotator.server", root)
    assert "gradio" in loaded and not loaded & set(HEAVY)


def test_the_contract_loads_no_heavy_library(root):
    loaded = modules_loaded_by(", ".join(TORCH_FREE), root)
    assert not loaded & {*HEAVY, "gradio", "numpy", "annotator"}


def test_the_command_line_answers_before_torch_is_loaded(root):
    assert "torch" not in modules_loaded_by("sail.__main__", root)
