import pytest
import torch

from sail.config import Scoring
from sail.reward import bank_of, draw_weights, implicit_reward, margin_with_error

SHAPE = (4, 8, 8)


def test_the_bank_of_a_prompt_is_always_the_same_and_differs_between_prompts():
    scoring = Scoring(draws=5)
    first, again = (bank_of("a fox", 2, SHAPE, 1000, scoring) for _ in range(2))
    other = bank_of("a pizza", 2, SHAPE, 1000, scoring)
    assert torch.equal(first.timesteps_NK, again.timesteps_NK)
    assert torch.equal(first.noise_NKCHW, again.noise_NKCHW)
    assert not torch.equal(first.noise_NKCHW, other.noise_NKCHW)


def test_candidates_of_a_prompt_share_their_draws_unless_told_otherwise():
    shared = bank_of("a fox", 3, SHAPE, 1000, Scoring(draws=5))
    own = bank_of("a fox", 3, SHAPE, 1000, Scoring(draws=5, shared=False))
    assert shared.noise_NKCHW.shape == own.noise_NKCHW.shape == (3, 5, *SHAPE)
    assert torch.equal(shared.noise_NKCHW[0], shared.noise_NKCHW[2])
    assert not torch.equal(own.noise_NKCHW[0], own.noise_NKCHW[2])
    assert not torch.equal(own.timesteps_NK[0], own.timesteps_NK[2])


def test_a_shared_bank_makes_a_margin_independent_of_the_noise_that_all_candidates_see():
    """What a draw adds to every candidate's error leaves the margin; with own draws it stays in it."""
    truth_N, weights = torch.tensor([0.3, 0.0]), torch.full((10,), 0.1, dtype=torch.float64)
    for shared in (True, False):
        bank = bank_of("a fox", 2, SHAPE, 1000, Scoring(draws=10, shared=shared))
        gain_NK = truth_N[:, None] + bank.noise_NKCHW.mean((2, 3, 4))
        margin, _ = margin_with_error(gain_NK[0], gain_NK[1], weights, beta=2)
        assert (abs(margin - 0.3) < 1e-6) is shared


@pytest.mark.parametrize("shared", [True, False])
def test_each_draw_has_its_own_slice_of_the_asked_timesteps(shared):
    scoring = Scoring(draws=4, timesteps=(0.2, 1.0), shared=shared)
    timesteps_NK = bank_of("a fox", 2, SHAPE, 1000, scoring).timesteps_NK
    assert timesteps_NK.min() >= 200 and timesteps_NK.max() < 1000
    assert all(200 + 200 * k <= t <= 400 + 200 * k for k, t in enumerate(timesteps_NK[1].tolist()))


def test_plain_mean_reward_is_half_beta_times_the_mean_gain():
    gain_NK = torch.tensor([[0.1, 0.3], [0.0, -0.2]])
    weights = draw_weights([gain_NK], Scoring(draws=2, average="mean"))
    reward_N, error_N = implicit_reward(gain_NK, weights, beta=10)
    assert torch.allclose(reward_N, torch.tensor([1.0, -0.5], dtype=torch.float64))
    # Sample standard deviation over draws, divided by the root of their number.
    assert torch.allclose(error_N, torch.tensor([1.0, 1.0], dtype=torch.float64) * 5 * 0.2 / 2)


def test_a_loud_draw_does_not_decide_alone_when_draws_are_normalised():
    torch.manual_seed(0)
    truth_N = torch.linspace(-1, 1, 8)
    quiet = truth_N[:, None] * 1e-3 + torch.randn(8, 9) * 3e-4
    loud = torch.randn(8, 1) * 1.0
    gain_NK = torch.cat([loud, quiet], 1)
    rank = {}
    for average in ("mean", "normalised"):
        weights = draw_weights([gain_NK], Scoring(draws=10, average=average))
        reward_N, _ = implicit_reward(gain_NK, weights, beta=2000)
        rank[average] = float(torch.corrcoef(torch.stack([reward_N, truth_N.double()]))[0, 1])
    assert rank["normalised"] > 0.9 > rank["mean"]


def test_a_draw_that_tells_nothing_apart_does_not_count_without_end():
    gain_NK = torch.tensor([[0.0, 0.1, 0.2], [0.0, 0.3, 0.1]])
    weights = draw_weights([gain_NK], Scoring(draws=3))
    reward_N, _ = implicit_reward(gain_NK, weights, beta=10)
    assert torch.isfinite(weights).all() and torch.isfinite(reward_N).all()
    assert weights.sum() == pytest.approx(1)


def test_shared_draws_cancel_in_the_error_of_a_margin():
    shared_K = torch.randn(10, generator=torch.Generator().manual_seed(1))
    winner_K, loser_K = shared_K + 0.1, shared_K
    weights = torch.full((10,), 0.1, dtype=torch.float64)
    margin, error = margin_with_error(winner_K, loser_K, weights, beta=2)
    assert margin == pytest.approx(0.1, abs=1e-6)
    assert error < 1e-6
