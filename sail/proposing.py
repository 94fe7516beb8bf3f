"""A propose run: draw candidates, judge them, rank self pairs. Knows no optimiser and no person."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from sail import distributed, judged
from sail.candidates import decoded, publish_candidates, require_all
from sail.files import open_latents, publish_lines
from sail.pairing import most_different, ranked_self_pairs
from sail.policy import Part, policy_of, tell_cut
from sail.progress import Progress
from sail.requests import ProposeRequest
from sail.reward import both_errors, draw_weights, implicit_reward, margin_with_error
from sail.runfolder import RunFolder
from sail.sampling import done_or_of_others, draw


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
