"""Do what a run folder asks for, once, under its lock. Knows which job does what, and nothing of how."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib.metadata import version
from typing import Any

import torch

from sail import __version__, distributed
from sail.batches import load_pairs
from sail.comparing import compare
from sail.export import export
from sail.memory import is_out_of_memory
from sail.monitors import base_appearance, measure
from sail.policy import cut_in_words, policy_of
from sail.progress import Progress
from sail.proposing import propose
from sail.requests import CompareRequest, EvaluateRequest, ExportRequest, ProposeRequest, TrainRequest
from sail.runfolder import Lost, RunFolder, Stopped
from sail.training import publish_judged, train

Job = Callable[[RunFolder, Any, Progress], dict[str, object]]


def evaluate(folder: RunFolder, request: EvaluateRequest, progress: Progress) -> dict[str, object]:
    """Measure an adapter as a train run does after training."""
    began = time.monotonic()
    policy = policy_of(request.model, progress)
    if request.adapter:
        policy.load("policy", folder.adapter_input(request.adapter))
    data = load_pairs(folder, policy, request)
    measured = measure(
        policy,
        data.human,
        base=base_appearance(policy, request.monitoring, request.sampling, progress),
        beta=request.beta,
        scoring=request.scoring,
        sampling=request.sampling,
        monitoring=request.monitoring,
        progress=progress,
    )
    publish_judged(folder.path / "judged_pairs.jsonl", measured.judged)
    return {
        **measured.told(request.monitoring),
        "seconds": round(time.monotonic() - began, 2),
    }


JOBS: dict[type, Job] = {
    ProposeRequest: propose,
    TrainRequest: train,
    EvaluateRequest: evaluate,
    # Nothing in it can be shared.
    ExportRequest: lambda *run: distributed.from_main(lambda: export(*run)),
    CompareRequest: compare,
}


def execute(folder: RunFolder) -> dict[str, Any]:
    """Run to the end and publish result.json; a run that is done is left as it is, unless a file of it broke.

    Of several processes each calls this, and each gets the result.
    Raises Stopped after a stop that was asked for, and what went wrong otherwise; progress.json says so.
    """
    request = folder.request()
    distributed.join()
    with folder.lock() if distributed.is_main() else nullcontext():
        prompts = len(request.prompts) if isinstance(request, ProposeRequest | CompareRequest) else 0
        # The others hear this once the main process holds the folder.
        done = distributed.from_main(lambda: folder.result() if folder.is_whole(prompts) else None)
        if done is not None:
            return done
        progress = Progress(folder, is_main=distributed.is_main())
        if distributed.is_main():
            folder.clear_unfinished()
            folder.clear_failure()
        progress.stage("load", 1)
        try:
            result = JOBS[type(request)](folder, request, progress)
        except Stopped as stop:
            # Not at the start: whoever asks while the run still loads is to be heard. Together: whoever
            # leaves first takes the others along.
            why = str(stop)
            distributed.from_main(lambda: _end_stopped(folder, progress, why))
            raise
        except Lost as lost:
            progress.end("interrupted", str(lost))
            raise
        except BaseException as error:
            # On a full disk not even this can be written, and the error itself is what is to be heard.
            with suppress(OSError):
                progress.end("failed", one_sentence(error))
            # Whoever starts it again does not ask it to stop.
            if distributed.is_main():
                with suppress(OSError):
                    folder.clear_stop()
            raise
        result = {"kind": request.kind, "round": request.round, **result, "made_with": _made_with(request)}
        return distributed.from_main(lambda: _end_done(folder, progress, result))


def _end_stopped(folder: RunFolder, progress: Progress, why: str) -> None:
    folder.clear_stop()
    progress.end("stopped", why)


def _end_done(folder: RunFolder, progress: Progress, result: dict[str, Any]) -> dict[str, Any]:
    folder.publish_result(result)
    progress.end("done", cut_in_words(cut) if (cut := result.get("prompts_cut")) else "")
    return result


def one_sentence(error: BaseException) -> str:
    """What a person is told of an error."""
    unsaid = isinstance(error, MemoryError) and not str(error)
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if is_out_of_memory(error) or unsaid or on_cpu:
        return "Memory ran out. Take fewer pairs in a step, smaller images or a smaller model."
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted from the keyboard. Resume goes on from what is kept."
    return str(error) or type(error).__name__


def _made_with(request: Any) -> dict[str, str | int]:
    """Bits depend on these."""
    sampling = getattr(request, "sampling", None)
    return {
        "sail": __version__,
        **{name: version(name) for name in ("torch", "diffusers", "peft", "transformers", "accelerate")},
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processes": distributed.world_size(),
        **({"chunk": sampling.chunk} if sampling else {}),
    }
