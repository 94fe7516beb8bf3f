"""A propose run: draw candidates, judge them, rank self pairs. Knows no optimiser and no person."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from sail import distributed, judged
from sail.config import Config, ModelRef, ProposeRequest, Sampling
from sail.files import open_latents, publish, publish_json, publish_lines, sha256_file
from sail.pairing import most_different, ranked_self_pairs
from sail.policy import Part, Policy, policy_of, tell_cut
from sail.progress import Progress
from sail.records import Candidate, CandidateSet
from sail.reward import both_errors, draw_weights, implicit_reward, margin_with_error
from sail.runfolder import ADAPTER_FILE, Lost, RunFolder, claim
from sail.sampling import done_or_of_others, draw

PATIENCE_S = 60
"""So long the main process waits to see what processes on other nodes have written."""


SPACE = "latent_space"
"""In the metadata of a file of latents: of which autoencoder they are."""


def propose(folder: RunFolder, request: ProposeRequest, progress: Progress) -> dict[str, object]:
    """Publish every prompt's candidates as they are done; with scoring, rank self pairs.

    Prompts that were finished before are kept. Returns what result.json says.
    """
    began = time.monotonic()
    policy = policy_of(request.model, progress)
    if request.adapter:
        policy.load("policy", folder.adapter_input(request.adapter))
    if request.reference_adapter:
        policy.load("parent", folder.adapter_input(request.reference_adapter))
    reference: Part = "parent" if request.reference_adapter else "base"

    cut = tell_cut(policy, request.prompts, progress)
    (folder.path / "candidates").mkdir(exist_ok=True)
    done = distributed.from_main(folder.finished_prompts)
    progress.stage("draw and judge" if request.scoring else "draw", len(request.prompts), done=len(done))
    if request.draw_strength > 0:
        policy.play("policy", strength=request.draw_strength)
    else:
        policy.play("base")
    skip = done_or_of_others(len(request.prompts), request.num_candidates, request.sampling, done)
    drawn_prompts = draw(
        policy,
        request.prompts,
        per_prompt=request.num_candidates,
        noise_seed=request.noise_seed,
        sampling=request.sampling,
        skip=skip,
    )
    if request.scoring:
        policy.backbone.expect([prompt] for index, prompt in enumerate(request.prompts) if index not in skip)
    with distributed.together():
        for drawn in drawn_prompts:
            prompt = request.prompts[drawn.prompt_index]
            tensors = {"latents": drawn.latents_NCHW.contiguous()}
            if request.scoring:
                reference_NK, policy_NK = both_errors(
                    policy, prompt, drawn.latents_NCHW, request.scoring, reference=reference
                )
                tensors |= {"gains": reference_NK - policy_NK, "reference_errors": reference_NK}
            images = decoded(policy, drawn.latents_NCHW, request.sampling.chunk)
            flat_ND = drawn.latents_NCHW.flatten(1)
            to_show = most_different(torch.cdist(flat_ND, flat_ND).tolist(), request.pairs_to_show)
            said = judged.told(request, policy.backbone)
            publish_candidates(folder.path, drawn.prompt_index, prompt, tensors, images, to_show, said)
            progress.look(folder.count_finished)
            folder.stop_if_asked()
    progress.reach(folder.count_finished())

    distributed.from_main(lambda: require_all(folder, len(request.prompts)))
    self_pairs = distributed.from_main(lambda: _rank(folder, request)) if request.scoring else 0
    return {
        "prompts": len(request.prompts),
        "prompts_cut": cut,
        "candidates": len(request.prompts) * request.num_candidates,
        "self_pairs": self_pairs,
        "distilled": policy.backbone.distilled,
        "seconds": round(time.monotonic() - began, 2),
    }


def decoded(policy: Policy, latents_NCHW: Tensor, chunk: int) -> Tensor:
    """Images of latents, at most `chunk` at once: N H W 3 uint8 on the CPU."""
    backbone = policy.backbone
    return policy.at_once.cat(
        "decode",
        chunk,
        len(latents_NCHW),
        lambda some: backbone.decode(latents_NCHW[some].to(backbone.device)),
    )


def publish_candidates(
    run: Path,
    prompt_index: int,
    prompt: str,
    tensors: dict[str, Tensor],
    images_NHW3: Tensor,
    to_show: Sequence[tuple[int, int]] = (),
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Images and tensors of one prompt's candidates, then the record that names them.

    ValueError where a tensor has a value that is not finite: nobody is asked about an image of nothing, and
    one such error of the judge's would be in the weights of all draws.
    """
    if not torch.isfinite(tensors["latents"]).all():
        raise ValueError(
            f"What was drawn for {prompt!r} has values that are not finite, so there is no picture. "
            "Are the model's files whole? An adapter that went too far does it as well: "
            "go on from an earlier round. If it is this prompt alone, take it out."
        )
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError(
            f"What the judge measured of the images of {prompt!r} is not finite, so no pair of the run could "
            "be ranked. An adapter that went too far does it: go on from an earlier round. If it is this "
            "prompt alone, take it out."
        )
    name = f"candidates/{prompt_index:05d}"
    candidates = []
    for index, image_HW3 in enumerate(images_NHW3):
        file = f"{name}-{index}.png"
        publish(run / file, lambda beside, own=image_HW3: save_png(own, beside))  # type: ignore[misc]
        candidates.append(Candidate(index=index, image=file))
    latents = f"{name}.safetensors"
    publish(run / latents, lambda beside: save_file(tensors, beside, dict(metadata or {})))
    found = CandidateSet(
        prompt_index=prompt_index,
        prompt=prompt,
        latents=latents,
        candidates=tuple(candidates),
        to_show=tuple(to_show),
    )
    # Last: what it names is there when it is.
    publish_json(run / f"{name}.json", found.model_dump())


def save_png(image_HW3: Tensor, path: Path) -> None:
    Image.fromarray(image_HW3.numpy()).save(path, format="PNG")


def _rank(folder: RunFolder, request: ProposeRequest) -> int:
    """Rank self pairs over the whole run: draws are weighted by their spread over all prompts."""
    assert request.scoring is not None
    found = folder.candidate_sets()
    gains_NK = [_gains(folder.path / one.latents) for one in found]
    weight_K = draw_weights(gains_NK, request.scoring)
    rewards = [implicit_reward(gain_NK, weight_K, beta=request.beta)[0].tolist() for gain_NK in gains_NK]

    def margin_error(prompt: int, winner: int, loser: int) -> float:
        gain_NK = gains_NK[prompt]
        return margin_with_error(gain_NK[winner], gain_NK[loser], weight_K, beta=request.beta)[1]

    pairs = ranked_self_pairs(
        [one.prompt for one in found],
        rewards,
        margin_error,
        choose=request.choose,
        per_prompt=request.self_pairs_per_prompt,
        min_margin=request.min_margin,
        noise_seed=request.noise_seed,
    )
    publish_lines(
        folder.path / "rewards.jsonl",
        ({"prompt_index": one.prompt_index, "rewards": own} for one, own in zip(found, rewards, strict=True)),
    )
    publish_lines(folder.path / "self_pairs.jsonl", (pair.model_dump() for pair in pairs))
    return len(pairs)


def _gains(file: Path) -> Tensor:
    drawn_anew = f" Or remove it and {file.stem}.json, then resume: it is drawn anew."
    with open_latents(file, instead=drawn_anew) as opened:
        gains_NK: Tensor = opened.get_tensor("gains")
    return gains_NK


def require_all(folder: RunFolder, count: int) -> None:
    """Wait for what all processes have written: on a shared file system others' files may be seen later.

    Lost where it does not come.
    """
    for _ in range(PATIENCE_S):
        if (found := len(folder.finished_prompts())) == count:
            return
        time.sleep(1)
    raise Lost(
        f"{folder.path} holds candidates of {found} prompts, and {count} were drawn. "
        "Do all processes see the same folder? Resume draws what is missing."
    )


def space_of(file: Path) -> str | None:
    """Of which autoencoder its latents are, where the file says so."""
    with open_latents(file) as opened:
        return (opened.metadata() or {}).get(SPACE)


def load_latents(run: Path, file: str, row: int) -> Tensor:
    """One candidate's final latents: C H W float32."""
    with open_latents(run / file) as opened:
        latents: Tensor = opened.get_slice("latents")[row]
    if not torch.isfinite(latents).all():
        raise ValueError(f"{run / file} is broken: row {row} has values that are not finite.")
    return latents


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
