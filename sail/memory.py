"""What to do where memory runs out. Knows no pair and no loss.

Where the pairs of one training step are cut, or the images that are drawn, decoded or judged together,
changes no mathematics, only the last bits, so they are cut smaller. A run started again is to have the same
bits: of a training's steps, which a resume begins in the middle, that is written into its folder and holds
from the same step on; images are tried with as many as before. Whether an adapter could be folded into
weights in float32 on a GPU (`Policy.folded`) is found out anew: there a run that is resumed may differ in the
last bits from one that was not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from sail import distributed
from sail.config import Optimisation
from sail.runfolder import RunFolder

SMALLER = (
    "Take smaller images (in the app in Setup, once some are drawn with a new project), a smaller model "
    "or a device with more memory."
)
HANDLES = (
    "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED", "CUDNN_STATUS_ALLOC_FAILED",
    # Of a convolution, once no way to compute it found room for its workspace.
    "unable to find an engine to execute this computation",
    # Of what torch does not allocate by itself, such as pinned memory and kernels.
    "CUDA error: out of memory",
)  # fmt: skip
"""What is raised where a library finds no memory for itself, on a card that is full."""
MOST_ON_CPU = 16
"""Larger micro-batches gain nothing there, and no error says in time that memory runs out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once may do."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in HANDLES)


def said_by_device(error: BaseException) -> str:
    """What a library said, in a sentence to put behind ours: it may mean something else than memory."""
    if isinstance(error, torch.OutOfMemoryError):
        return ""
    first, *_ = str(error).strip().split("\n")
    return f" The device said: {first.rstrip('.')}."


@contextmanager
def loading() -> Iterator[None]:
    """MemoryError where a model that is loaded in it does not fit."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(
            "Memory ran out while the model was loaded. Take a smaller model, the precision bfloat16 where "
            "the device has it, or a device with more memory."
        ) from error


class AtOnce:
    """How many images a process computes at once, by what memory has allowed so far."""

    def __init__(self) -> None:
        self._most: dict[str, int] = {}

    def cat(self, what: str, most: int, count: int, compute: Callable[[slice], Tensor]) -> Tensor:
        """`compute` of images 0 to `count`, at most `most` together, joined.

        Halved where memory runs out, from then on and for all that is called `what`, such as "draw".
        MemoryError where one does not fit.
        """
        done: list[Tensor] = []
        first = 0
        while first < count:
            most = min(most, self._most.get(what, most))
            size = min(most, count - first)
            part: Tensor | None = None
            said = ""
            try:
                part = compute(slice(first, first + size))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                said = said_by_device(error)
            if part is None:
                # Only now: what was raised had hold of the memory.
                torch.cuda.empty_cache()
                self._halve(what, size, most, said)
            else:
                done.append(part)
                first += size
        return torch.cat(done)

    def _halve(self, what: str, size: int, most: int, said: str) -> None:
        if size == 1:
            raise MemoryError(f"Memory ran out with one image to {what}. {SMALLER}{said}")
        # Of the most and not of a smaller rest: a run that is begun again with that rest comes to the same.
        while most >= size:
            most //= 2
        self._most[what] = most
        line = f"Memory ran out with {size} images to {what} at once. It goes on with {most}."
        tqdm.write(line, file=sys.stderr)


class Fit(NamedTuple):
    """How a step is computed."""

    micro_batch_pairs: int
    checkpointing: bool = False
    """Activations are computed again in the backward pass and not kept."""

    @property
    def in_words(self) -> str:
        pairs = f"{self.micro_batch_pairs} pair{'s' if self.micro_batch_pairs > 1 else ''} at once"
        return f"{pairs}, activations computed again" if self.checkpointing else pairs


class MemoryFit:
    """How each step of a run is computed by this process, by what memory has allowed so far."""

    def __init__(self, folder: RunFolder, optimisation: Optimisation, *, on_gpu: bool) -> None:
        most = optimisation.micro_batch_pairs or (optimisation.batch_pairs if on_gpu else MOST_ON_CPU)
        self._folder = folder
        first, last = distributed.span(optimisation.batch_pairs)
        self._from_step = [(0, Fit(min(most, last - first)))]
        for event in folder.events(distributed.rank()):
            if event["event"] == "out_of_memory":
                self._from_step.append(
                    (event["step"], Fit(event["micro_batch_pairs"], event["activation_checkpointing"]))
                )

    def at(self, step: int) -> Fit:
        """Of the step, from 1."""
        fits = [fit for since, fit in self._from_step if since <= step]
        # Not the last: a run begun again may run out at an earlier step than it did before.
        return min(fits, key=lambda fit: (fit.micro_batch_pairs, not fit.checkpointing))

    def smaller(self, step: int, said: str = "") -> Fit:
        """Memory ran out in this step: how to go on, from it on. MemoryError where nothing is smaller, with
        what the device `said`."""
        before = self.at(step)
        if before.micro_batch_pairs > 1:
            fit = Fit((before.micro_batch_pairs + 1) // 2, before.checkpointing)
        elif not before.checkpointing:
            fit = Fit(1, True)
        else:
            raise MemoryError(
                f"Memory ran out with one pair at a time and activations computed again. {SMALLER}{said}"
            )
        self._folder.append_event(
            distributed.rank(),
            event="out_of_memory",
            step=step,
            micro_batch_pairs=fit.micro_batch_pairs,
            activation_checkpointing=fit.checkpointing,
        )
        self._from_step.append((step, fit))
        return fit

    def told(self) -> dict[str, object]:
        """For result.json: how the last step was computed, and how often memory ran out."""
        fit = self.at(max(since for since, _ in self._from_step))
        return {
            "micro_batch_pairs": fit.micro_batch_pairs,
            "activation_checkpointing": fit.checkpointing,
            "out_of_memory": len(self._from_step) - 1,
        }
