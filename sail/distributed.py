"""The processes of one run: which one this is, its share of the work, sums over all, chance alike in all.

Knows no model. Several are started by torchrun, whose environment accelerate reads; the one with rank 0 is
the main process and alone writes records. Alone, a process gets back from every function here what it gave.
What is marked *together* is called by all processes in the same order: each waits there for the others.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor

from sail.runfolder import Lost, Stopped

T = TypeVar("T")
PATIENCE = timedelta(days=1)
"""So long a process waits for another that lives: one may be waiting for people's answers. That one died is
heard at once, by the connection and from torchrun."""
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def join() -> None:
    """Take this process's place among those of the run, and its GPU. Call it before a model is loaded.

    ValueError where there are fewer GPUs here than processes.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count()
    if 0 < gpus < local:
        raise ValueError(f"{local} processes were started on a machine with {gpus} GPUs. Start one a GPU.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # First: joining waits for the others to come.
        _die_with_parent()
    _state()


def _die_with_parent() -> None:
    """Whoever kills torchrun leaves no process that goes on writing."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The launcher of this process ended.")


def _state() -> PartialState:
    # A singleton: the first call joins the process group.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def world_size() -> int:
    return int(_state().num_processes)


def rank() -> int:
    return int(_state().process_index)


def is_main() -> bool:
    return rank() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """Every W-th of them, so that each of W processes has about as many."""
    return items[rank() :: world_size()]


def span(count: int) -> tuple[int, int]:
    """First and last + 1 of this process's part of `count`: together the parts are all, in order."""
    return count * rank() // world_size(), count * (rank() + 1) // world_size()


def generator_of(name: str) -> torch.Generator:
    """A generator that hangs on a name alone: whichever process asks, and whenever, draws the same."""
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def from_main(make: Callable[[], T]) -> T:
    """What `make` gives in the main process, in all; what it raises there is raised in all. Together."""
    if world_size() == 1:
        return make()
    said = [_outcome(make) if is_main() else None]
    with _reaching_others():
        value, error = broadcast_object_list(said)[0]
    if error is not None:
        raise error
    return cast(T, value)


def _outcome(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return make(), None
    except Exception as error:
        return None, error


def everyones(value: T) -> list[T]:
    """What each process gave, by rank. Together."""
    with _reaching_others():
        return list(gather_object([value]))


@contextmanager
def together() -> Iterator[None]:
    """A block in which each process works by itself: a stop that one hears is raised in all at its end."""
    heard: Stopped | None = None
    try:
        yield
    except Stopped as stop:
        heard = stop
    for stop_of_one in everyones(heard):
        if stop_of_one is not None:
            raise stop_of_one


def sum_gradients(gradients: Sequence[Tensor], totals: Tensor) -> Tensor:
    """Sum gradients in place, and the totals (any number) that are given back, over all processes. Together.

    One message for all: the gradients of a LoRA are small.
    """
    if world_size() == 1:
        return totals
    own = torch.cat([*(gradient.flatten() for gradient in gradients), totals])
    with _reaching_others():
        flat = reduce(own, "sum")
    *summed, totals = flat.split([gradient.numel() for gradient in gradients] + [len(totals)])
    for gradient, whole in zip(gradients, summed, strict=True):
        gradient.copy_(whole.view_as(gradient))
    return totals


@contextmanager
def _reaching_others() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        # This process's own device.
        raise
    except RuntimeError as error:
        said = str(error).strip().split("\n")[0]
        raise Lost(
            f"Another process of this run ended before it was done, or cannot be reached ({said}). "
            "Resume goes on."
        ) from error
