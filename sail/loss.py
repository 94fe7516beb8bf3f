"""Losses of pairs, Diffusion-DPO first: pure functions of errors. P pairs; 2P is winners, then losers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sail.config import Loss

IPO_TARGET = 0.5
"""The margin that IPO pulls to: arXiv 2310.12036 eq. 17 times tau squared, with beta in the place of tau."""


class PairLoss(NamedTuple):
    """Per pair, shape (P,): nothing is averaged yet. The margin is Diffusion-DPO's under every objective."""

    loss_P: Tensor
    margin_P: Tensor
    winner_gain_P: Tensor
    loser_gain_P: Tensor


def denoising_error(prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Squared error of each image, averaged over latent dimensions: (B,), dimensionless."""
    return (prediction_BCHW - target_BCHW).float().pow(2).flatten(1).mean(1)


def diffusion_dpo(
    policy_error_2P: Tensor,
    reference_error_2P: Tensor,
    config: Loss,
    *,
    human_P: Tensor | None = None,
    moved_2P: Tensor | None = None,
) -> PairLoss:
    """Loss of each pair, for `dpo` -log sigmoid of its margin; the mean over pairs is outside, the caller's.

    margin = beta/2 * (gain(winner) - gain(loser)) with gain = reference error - policy error
    (Diffusion-DPO eq. 14, errors as means). `winner_penalty` takes from the margin what the winner lost;
    `winner_pull` and `label_smoothing`, which is of what people say, are for the pairs in `human_P` (bool),
    or for all.

    `mirrored` needs `moved_2P`, the squared distance of the policy's predictions from the reference's. With
    s = `mirrored_step` it is -log sigmoid of beta/2s * (gain_s(winner) + gain_s(loser)), where gain_s is by
    how much s times the policy's step, for the loser turned round, lowers the error of the reference's
    prediction (DiffusionNFT's implicit positive and negative policy, arXiv 2509.16117, whose beta is s).
    """
    assert policy_error_2P.ndim == 1 and policy_error_2P.shape == reference_error_2P.shape
    human_P = torch.ones_like(policy_error_2P.chunk(2)[0]) if human_P is None else human_P.float()
    winner_gain_P, loser_gain_P = (reference_error_2P - policy_error_2P).chunk(2)
    margin_P = 0.5 * config.beta * (winner_gain_P - loser_gain_P)
    guarded_P = margin_P - config.winner_penalty * 0.5 * config.beta * F.relu(-winner_gain_P)
    if config.objective == "winner":
        loss_P = policy_error_2P.chunk(2)[0]
    elif config.objective == "ipo":
        loss_P = (guarded_P - IPO_TARGET).square()
    elif config.objective == "two_sided":
        up_P, down_P = 0.5 * config.beta * winner_gain_P, 0.5 * config.beta * loser_gain_P
        loss_P = -0.5 * (F.logsigmoid(2 * up_P) + F.logsigmoid(-2 * down_P))
    else:
        right_P, wrong_P = guarded_P, -guarded_P
        if config.objective == "mirrored":
            assert moved_2P is not None
            # A gain is linear in the step, less its square, which is s times as large here; the loser's own
            # is taken off as well.
            step, (winner_moved_P, loser_moved_P) = config.mirrored_step, moved_2P.chunk(2)
            right_P = margin_P + 0.5 * config.beta * (
                (1 - step) * winner_moved_P - (1 + step) * loser_moved_P
            )
            wrong_P = -margin_P + 0.5 * config.beta * (
                (1 - step) * loser_moved_P - (1 + step) * winner_moved_P
            )
        smoothing_P = config.label_smoothing * human_P
        loss_P = -(1 - smoothing_P) * F.logsigmoid(right_P) - smoothing_P * F.logsigmoid(wrong_P)
    if config.winner_pull:
        loss_P = loss_P - config.winner_pull * 0.5 * config.beta * winner_gain_P * human_P
    return PairLoss(loss_P, margin_P, winner_gain_P, loser_gain_P)


def safe_share(of_winners: Sequence[Tensor], of_losers: Sequence[Tensor]) -> Tensor:
    """How much of what losers teach is safe to learn: a scalar in [0, 1].

    The loss's gradient is w + l, its parts by winners' and by losers' errors, given parameter by parameter.
    A small step against w + s l changes the winners' errors, each weighed as the loss does, in proportion to
    -<w, w + s l>; returned is the largest s for which that is not above 0. Diffusion-SDPO (arXiv 2511.03317)
    bounds this image by image at the denoiser's output; over the parameters it is exact.
    """
    pairs = list(zip(of_winners, of_losers, strict=True))
    inner = torch.stack([(winners * losers).sum() for winners, losers in pairs]).sum()
    square = torch.stack([winners.square().sum() for winners, _ in pairs]).sum()
    return torch.where(inner < 0, (-square / inner).clamp(max=1), torch.ones_like(inner))


def stratified_timesteps(
    count: int,
    num_train_timesteps: int,
    generator: torch.Generator,
    share: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """`count` timesteps, one from each equal slice of `share` of the range, in random order: (count,)."""
    low, high = share
    slices = torch.randperm(count, generator=generator)
    position = low + (high - low) * (slices + torch.rand(count, generator=generator)) / count
    return (position * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)
