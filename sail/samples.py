"""Images of prompts for whoever asks, in a folder of their own. Knows no run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from sail import distributed
from sail.candidates import decoded, save_png
from sail.config import Config, Sampling
from sail.files import publish, publish_lines, sha256_file
from sail.model_ref import ModelRef
from sail.policy import policy_of
from sail.runfolder import ADAPTER_FILE, claim
from sail.sampling import done_or_of_others, draw


class SampleRequest(Config):
    """All that determines the images of a sample."""

    model: ModelRef
    adapter: str | None
    """sha256 of the LoRA."""
    prompts: tuple[str, ...]
    per_prompt: int
    noise_seed: int
    sampling: Sampling


def sample_to_folder(
    model: ModelRef,
    prompts: Sequence[str],
    out: Path,
    *,
    adapter: Path | None,
    per_prompt: int,
    noise_seed: int,
    sampling: Sampling,
) -> None:
    """Draw images into `out`, and index.jsonl in the order of prompts, then of images.

    Stopped and started again it goes on. ValueError where `out` holds anything else.
    """
    if adapter is not None and not (adapter / ADAPTER_FILE).is_file():
        raise ValueError(f"{adapter} holds no {ADAPTER_FILE}. Give the folder of a LoRA.")
    distributed.join()
    policy = policy_of(model)
    if adapter is not None:
        policy.load("policy", adapter)
    request = SampleRequest(
        model=model,
        adapter=sha256_file(adapter / ADAPTER_FILE) if adapter else None,
        prompts=tuple(prompts),
        per_prompt=per_prompt,
        noise_seed=noise_seed,
        sampling=sampling,
    )
    done = distributed.from_main(lambda: _sampled(out, request))
    skip = done_or_of_others(len(prompts), per_prompt, sampling, done)
    drawn_prompts = draw(
        policy, prompts, per_prompt=per_prompt, noise_seed=noise_seed, sampling=sampling, skip=skip
    )
    bar = {"total": len(prompts) - len(skip), "disable": None if distributed.is_main() else True}
    with distributed.together():
        for drawn in tqdm(drawn_prompts, desc="draw", leave=False, **bar):
            images = decoded(policy, drawn.latents_NCHW, sampling.chunk)
            for index, image_HW3 in enumerate(images):
                path = _sample(out, drawn.prompt_index, index)
                publish(path, lambda beside, own=image_HW3: save_png(own, beside))  # type: ignore[misc]
    lines = [
        {"prompt": prompt, "noise_seed": noise_seed, "path": str(_sample(out, number, index))}
        for number, prompt in enumerate(prompts)
        for index in range(per_prompt)
    ]
    distributed.from_main(lambda: publish_lines(out / "index.jsonl", lines))


def _sampled(out: Path, request: SampleRequest) -> frozenset[int]:
    """Take `out` for these images; prompts of which all are there."""
    claim(out, request, "sample")
    there = {file.name for file in out.iterdir()}
    return frozenset(
        number
        for number in range(len(request.prompts))
        if all(_sample(out, number, index).name in there for index in range(request.per_prompt))
    )


def _sample(out: Path, prompt_index: int, index: int) -> Path:
    return out / f"{prompt_index:05d}-{index}.png"
