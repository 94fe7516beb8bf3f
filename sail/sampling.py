"""Prompts -> candidates' final latents, seeded image by image. Knows no reward and no file.

B images of a chunk, C H W latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sail import distributed
from sail.backbones.base import Conditioning, join, take
from sail.config import Sampling
from sail.policy import Policy


@dataclass(frozen=True)
class Drawn:
    """Candidates of one prompt: final latents, N C H W float32 on the CPU."""

    prompt_index: int
    latents_NCHW: Tensor


def generator_of_image(noise_seed: int, prompt: str, index: int) -> torch.Generator:
    """The same under any adapter, batch size or number of processes."""
    return distributed.generator_of(f"{noise_seed}\n{index}\n{prompt}")


def draw(
    policy: Policy,
    prompts: Sequence[str],
    *,
    per_prompt: int,
    noise_seed: int,
    sampling: Sampling,
    skip: frozenset[int] = frozenset(),
) -> Iterator[Drawn]:
    """Candidates prompt by prompt. A chunk is drawn unless all of its prompts are in `skip`.

    A prompt with more images than a chunk is drawn in several. ValueError for a size that the model cannot
    draw, MemoryError where not even one image fits.
    """
    to_draw = [one for one in prompt_chunks(len(prompts), per_prompt, sampling) if not skip.issuperset(one)]
    policy.backbone.expect(_different(prompts[i] for i in indices) for indices in to_draw)
    for indices in to_draw:
        together = _Together(policy, [prompts[i] for i in indices], per_prompt, noise_seed, sampling)
        with policy.folded():
            latents = policy.at_once.cat("draw", sampling.chunk, len(indices) * per_prompt, together.drawn)
        for index, own in zip(indices, latents.split(per_prompt), strict=True):
            if index not in skip:
                yield Drawn(index, own.cpu())


def prompt_chunks(count: int, per_prompt: int, sampling: Sampling) -> list[range]:
    """Indices of whole prompts that are drawn together.

    Cut by position alone, so that a resumed run and any number of processes draw the same bits.
    """
    prompts = max(1, sampling.chunk // per_prompt)
    return [range(first, min(first + prompts, count)) for first in range(0, count, prompts)]


def done_or_of_others(
    count: int, per_prompt: int, sampling: Sampling, done: frozenset[int] = frozenset()
) -> frozenset[int]:
    """What `draw` skips in this process: prompts that are done, and chunks that are another process's.

    Of `count` prompts in all; `done` must be the same in all processes.
    """
    left = [chunk for chunk in prompt_chunks(count, per_prompt, sampling) if not done.issuperset(chunk)]
    own = {index for chunk in distributed.share(left) for index in chunk}
    return frozenset(range(count)) - own | done


def _different(prompts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(prompts))


class _Together:
    """The images of a chunk, which need not be drawn all at once."""

    def __init__(
        self, policy: Policy, prompts: Sequence[str], per_prompt: int, noise_seed: int, sampling: Sampling
    ) -> None:
        self._policy, self._noise_seed, self._sampling = policy, noise_seed, sampling
        self._images = [(prompt, own) for prompt in prompts for own in range(per_prompt)]
        different = _different(prompts)
        self._rows = [different.index(prompt) for prompt, _ in self._images]
        # Of all of them: text encoders may travel for it.
        self._conditioning = policy.backbone.conditioning_of(different)

    def drawn(self, some: slice) -> Tensor:
        """Final latents of some of them."""
        shape = self._policy.backbone.latent_shape(self._sampling.size)
        generators = [generator_of_image(self._noise_seed, *image) for image in self._images[some]]
        noise_BCHW = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        conditioning = take(self._conditioning, self._rows[some])
        return denoise(self._policy, noise_BCHW, conditioning, generators, self._sampling)


@torch.no_grad()
def denoise(
    policy: Policy,
    noise_BCHW: Tensor,
    conditioning: Conditioning,
    generators: list[torch.Generator],
    sampling: Sampling,
) -> Tensor:
    """Final latents (B C H W, float32) from starting noise, with the part that `policy` now plays."""
    backbone = policy.backbone
    solver = backbone.solver(sampling.solver, sampling.steps, noise_BCHW.shape[1:])
    latents = noise_BCHW.to(backbone.device) * solver.init_noise_sigma
    conditioning = backbone.at_guidance(conditioning, sampling.guidance)
    guided = sampling.is_guided(distilled=backbone.distilled)
    if guided:
        empty = take(backbone.conditioning_of([""]), [0] * len(latents))
        conditioning = join(empty, conditioning)
    # The other solvers take no noise after the first; only the ancestral solver uses the generators.
    extra = {"generator": generators} if sampling.solver == "ddpm" else {}
    for timestep in solver.timesteps:
        both = torch.cat([latents, latents]) if guided else latents
        both = solver.scale_model_input(both, timestep)
        prediction = backbone.predict(both, timestep.expand(len(both)), conditioning)
        if guided:
            without, with_prompt = prediction.chunk(2)
            prediction = without + sampling.guidance * (with_prompt - without)
        latents = solver.step(prediction, timestep, latents, **extra, return_dict=False)[0]
    return latents.float()
