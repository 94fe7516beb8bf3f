"""Bank of draws -> implicit reward and its standard error. Knows no file and no sampler.

N candidates of a prompt, K draws, C H W latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sail.backbones.base import Conditioning, take
from sail.config import Scoring
from sail.distributed import generator_of
from sail.loss import denoising_error
from sail.policy import Part, Policy


@dataclass(frozen=True)
class Bank:
    """K draws for each of a prompt's N candidates."""

    timesteps_NK: Tensor
    noise_NKCHW: Tensor


def bank_of(
    prompt: str, count: int, shape: tuple[int, int, int], num_train_timesteps: int, scoring: Scoring
) -> Bank:
    """The draws of a prompt with `count` candidates, always the same.

    Draw k takes its timestep from the k-th of K equal slices of the range, so that k means the same
    everywhere. Shared: one set for all candidates, so that the reward compares images and not draws.
    Otherwise every candidate has its own.
    """
    sets = 1 if scoring.shared else count
    timesteps, noise = [], []
    low, high = (share * num_train_timesteps for share in scoring.timesteps)
    for index in range(sets):
        own = "" if scoring.shared else f"{index}\n"
        generator = generator_of(f"bank\n0\n{own}{prompt}")
        within_K = torch.rand(scoring.draws, generator=generator)
        position_K = low + (torch.arange(scoring.draws) + within_K) / scoring.draws * (high - low)
        timesteps.append(position_K.long().clamp(0, num_train_timesteps - 1))
        noise.append(torch.randn((scoring.draws, *shape), generator=generator))
    return Bank(torch.stack(timesteps).expand(count, -1), torch.stack(noise).expand(count, -1, -1, -1, -1))


def draw_errors(
    policy: Policy,
    part: Part,
    latents_NCHW: Tensor,
    conditioning: Conditioning,
    bank: Bank,
    *,
    chunk: int = 64,
) -> Tensor:
    """Denoising error of every candidate under every draw, as `part`: (N, K) on the CPU.

    `conditioning` has one row: the prompt's. At most `chunk` images are judged at once.
    """
    backbone = policy.backbone
    count, draws = bank.timesteps_NK.shape
    candidate_B, draw_B = torch.arange(count).repeat_interleave(draws), torch.arange(draws).repeat(count)

    def errors_of(some: slice) -> Tensor:
        candidate_b, draw_b = candidate_B[some], draw_B[some]
        latents = latents_NCHW[candidate_b].to(backbone.device)
        noise = bank.noise_NKCHW[candidate_b, draw_b].to(backbone.device)
        drawn = bank.timesteps_NK[candidate_b, draw_b].to(backbone.device)
        timesteps = backbone.timesteps(drawn, latents.shape[1:])
        prediction = backbone.predict(
            backbone.noisy(latents, noise, timesteps), timesteps, take(conditioning, [0] * len(latents))
        )
        return denoising_error(prediction, backbone.target(latents, noise, timesteps))

    with policy.acting_as(part), policy.folded():
        return (
            policy.at_once.cat(f"judge as {part}", chunk, count * draws, errors_of).view(count, draws).cpu()
        )


def gains(policy: Policy, prompt: str, latents_NCHW: Tensor, scoring: Scoring, *, reference: Part) -> Tensor:
    """reference error - policy error of every candidate under every draw of the prompt's bank: (N, K)."""
    reference_NK, policy_NK = both_errors(policy, prompt, latents_NCHW, scoring, reference=reference)
    return reference_NK - policy_NK


def both_errors(
    policy: Policy, prompt: str, latents_NCHW: Tensor, scoring: Scoring, *, reference: Part
) -> tuple[Tensor, Tensor]:
    """The reference's and the policy's error of every candidate under every draw: two (N, K)."""
    backbone = policy.backbone
    count, channels, height, width = latents_NCHW.shape
    bank = bank_of(prompt, count, (channels, height, width), backbone.num_train_timesteps, scoring)
    conditioning = backbone.conditioning_of([prompt])
    asked, chunk = (latents_NCHW, conditioning, bank), scoring.chunk
    return (
        draw_errors(policy, reference, *asked, chunk=chunk),
        draw_errors(policy, "policy", *asked, chunk=chunk),
    )


def draw_weights(gains_NK: Sequence[Tensor], scoring: Scoring) -> Tensor:
    """How much each of the K draws counts: (K,), summing to 1.

    `mean` weighs them alike (the paper). `normalised` divides each by its spread over the candidates of a
    prompt, pooled over prompts: without it the few draws at the smallest timesteps, whose differences are
    the largest and mostly noise, decide alone.
    """
    draws = gains_NK[0].shape[1]
    if scoring.average == "mean":
        return torch.full((draws,), 1 / draws, dtype=torch.float64)
    variance_GK = torch.stack([gain_NK.double().var(0, unbiased=False) for gain_NK in gains_NK])
    spread_K = variance_GK.mean(0).sqrt()
    # A draw on which all candidates are alike says nothing; it must not count without end.
    weight_K = 1 / spread_K.clamp(min=max(float(spread_K.max()) * 1e-4, 1e-20))
    return weight_K / weight_K.sum()


def implicit_reward(gain_NK: Tensor, weight_K: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """Reward of N candidates from K draws, and its standard error: two (N,) tensors, in nats.

    SAIL eq. 8 with weights for the draws; the factor 1/2 follows Diffusion-DPO. The standard error takes the
    draws as independent; they are stratified, so it is rather too large than too small.
    """
    value_NK = 0.5 * beta * gain_NK.double() * weight_K * len(weight_K)
    return value_NK.mean(1), value_NK.std(1) / len(weight_K) ** 0.5


def margin_with_error(
    winner_gain_K: Tensor, loser_gain_K: Tensor, weight_K: Tensor, *, beta: float
) -> tuple[float, float]:
    """Difference of two rewards in nats and its standard error, from K shared draws of each, (K,).

    Shared draws cancel much of either's own error.
    """
    margin, error = implicit_reward((winner_gain_K - loser_gain_K)[None], weight_K, beta=beta)
    return float(margin), float(error)
