"""What a worker process does: a unit, or the pool of a repeat. Not in __main__, which spawn cannot import."""

from __future__ import annotations

import os
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from benchmarks.alignment.study import Size, Study

# What a worker keeps from unit to unit: reading the pool of a repeat takes a while.
_studies: dict[tuple[Path, int, Size], Study] = {}


def leave_with_parent() -> None:
    """For a worker's start: when whoever asked is gone, however that came, nobody computes on for it."""
    parent = parent_process()
    assert parent is not None, "Only a process that multiprocessing started has a parent to leave with."

    def watch() -> None:
        parent.join()
        os._exit(1)  # What was begun is in its folder, and gone on with by the same command.

    Thread(target=watch, daemon=True).start()


def work(out: Path, size: dict[str, Any], taste: str, repeat: int, method: str) -> dict[str, Any]:
    """One unit."""
    return _study(out, size, repeat).unit(taste, method)


def prepare(out: Path, size: dict[str, Any], repeat: int, turn: int) -> None:
    """Draw a part of the pool of a repeat, which its units share."""
    _study(out, size, repeat).draw_turn(turn)


def _study(out: Path, size: dict[str, Any], repeat: int) -> Study:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    key = (out, repeat, Size(**size))
    if key not in _studies:
        _studies.clear()
        _studies[key] = Study(*key)
    return _studies[key]
