"""A compare run: prompts in several looks, drawn from the same noise. Knows no judge and no person."""

from __future__ import annotations

import time

import torch

from sail import distributed
from sail.candidates import decoded, publish_candidates, require_all
from sail.policy import policy_of, tell_cut
from sail.progress import Progress
from sail.requests import CompareRequest
from sail.runfolder import RunFolder
from sail.sampling import done_or_of_others, draw


def compare(folder: RunFolder, request: CompareRequest, progress: Progress) -> dict[str, object]:
    """Publish every prompt's images in all looks as soon as they are done.

    Prompts that were finished before are kept. Returns what result.json says.
    """
    began = time.monotonic()
    policy = policy_of(request.model, progress)
    for sha256 in dict.fromkeys(look.adapter for look in request.looks if look.adapter):
        policy.load(sha256, folder.adapter_input(sha256))

    (folder.path / "candidates").mkdir(exist_ok=True)
    looks, prompts = request.looks, request.prompts
    cut = tell_cut(policy, prompts, progress)
    done = distributed.from_main(folder.finished_prompts)
    skip = done_or_of_others(len(prompts), request.per_prompt, request.sampling, done)
    progress.stage("draw", len(prompts) * len(looks), done=len(done) * len(looks))
    # One sampler a look, all cut into the same chunks: in step, each draws its chunk as what is played then.
    samplers = [
        draw(
            policy,
            prompts,
            per_prompt=request.per_prompt,
            noise_seed=request.noise_seed,
            sampling=request.sampling,
            skip=skip,
        )
        for _ in looks
    ]
    with distributed.together():
        for index in sorted(set(range(len(prompts))) - skip):
            latents = []
            for look, sampler in zip(looks, samplers, strict=True):
                policy.play(look.adapter or "base", strength=look.strength)
                drawn = next(sampler)
                assert drawn.prompt_index == index
                latents.append(drawn.latents_NCHW)
                progress.advance()
            latents_NCHW = torch.cat(latents)
            images = decoded(policy, latents_NCHW, request.sampling.chunk)
            publish_candidates(folder.path, index, prompts[index], {"latents": latents_NCHW}, images)
            progress.look(lambda: folder.count_finished() * len(looks))
            folder.stop_if_asked()
    distributed.from_main(lambda: require_all(folder, len(prompts)))
    progress.reach(folder.count_finished() * len(looks))
    return {
        "prompts": len(prompts),
        "prompts_cut": cut,
        "candidates": len(prompts) * len(looks) * request.per_prompt,
        "seconds": round(time.monotonic() - began, 2),
    }
