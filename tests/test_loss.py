import math

import pytest
import torch
import torch.nn.functional as F

from sail.config import Loss
from sail.loss import denoising_error, diffusion_dpo, safe_share, stratified_timesteps


def test_loss_is_log_2_when_policy_equals_reference():
    error_2P = torch.rand(8)
    pair = diffusion_dpo(error_2P, error_2P, Loss(beta=5000))
    assert torch.allclose(pair.loss_P, torch.full((4,), math.log(2)))
    assert pair.margin_P.abs().max() == 0


def test_the_margin_is_half_beta_times_the_difference_of_gains():
    # Pair 0: winner gains .3, loser .1; pair 1: winner loses .2, loser gains .1.
    reference_2P = torch.tensor([0.5, 0.5, 0.4, 0.4])
    policy_2P = torch.tensor([0.2, 0.7, 0.3, 0.3])
    pair = diffusion_dpo(policy_2P, reference_2P, Loss(beta=10))
    assert torch.allclose(pair.winner_gain_P, torch.tensor([0.3, -0.2]))
    assert torch.allclose(pair.loser_gain_P, torch.tensor([0.1, 0.1]))
    assert torch.allclose(pair.margin_P, torch.tensor([1.0, -1.5]))


def test_the_mean_over_pairs_is_outside_the_sigmoid():
    reference_2P, policy_2P = torch.tensor([0.9, 0.5, 0.5, 0.5]), torch.tensor([0.1, 0.7, 0.5, 0.5])
    pair = diffusion_dpo(policy_2P, reference_2P, Loss(beta=10))
    outside = -F.logsigmoid(pair.margin_P).mean()
    inside = -F.logsigmoid(pair.margin_P.mean())
    assert torch.isclose(pair.loss_P.mean(), outside)
    assert (outside - inside).abs() > 0.1


def test_label_smoothing_counts_a_share_of_labels_as_wrong():
    reference_2P, policy_2P = torch.tensor([0.5, 0.5]), torch.tensor([0.4, 0.6])
    margin = torch.tensor(1.0)
    pair = diffusion_dpo(policy_2P, reference_2P, Loss(beta=10, label_smoothing=0.2))
    assert torch.allclose(pair.loss_P, -0.8 * F.logsigmoid(margin) - 0.2 * F.logsigmoid(-margin))


@pytest.mark.parametrize("objective", ["dpo", "mirrored"])
def test_label_smoothing_is_of_what_people_say_and_leaves_self_pairs(objective):
    reference_2P, policy_2P = torch.full((4,), 0.5), torch.tensor([0.4, 0.3, 0.6, 0.7])
    smoothed, plain = (
        diffusion_dpo(
            policy_2P,
            reference_2P,
            Loss(objective=objective, beta=10, label_smoothing=smoothing),
            human_P=torch.tensor([True, False]),
            moved_2P=torch.full((4,), 0.05),
        ).loss_P
        for smoothing in (0.2, 0.0)
    )
    assert smoothed[0] != plain[0] and smoothed[1] == plain[1]


def test_the_winner_penalty_acts_only_where_the_winner_lost_ground():
    reference_2P = torch.tensor([0.5, 0.5, 0.5, 0.5])
    policy_2P = torch.tensor([0.4, 0.6, 0.9, 0.9])
    plain = diffusion_dpo(policy_2P, reference_2P, Loss(beta=10))
    guarded = diffusion_dpo(policy_2P, reference_2P, Loss(beta=10, winner_penalty=2))
    assert torch.equal(guarded.margin_P, plain.margin_P)
    assert guarded.loss_P[0] == plain.loss_P[0]
    assert torch.isclose(guarded.loss_P[1], -F.logsigmoid(plain.margin_P[1] - 2 * 5 * 0.1))


@pytest.mark.parametrize("objective", ["dpo", "two_sided"])
def test_every_bounded_objective_is_log_2_where_policy_equals_reference(objective):
    error_2P = torch.rand(6)
    loss_P = diffusion_dpo(error_2P, error_2P, Loss(objective=objective)).loss_P
    assert torch.allclose(loss_P, torch.full((3,), math.log(2)))


def test_the_winners_pull_lowers_its_error_and_asks_nothing_of_the_loser():
    policy_2P = torch.tensor([0.4, 0.5], requires_grad=True)
    reference_2P = torch.tensor([0.5, 0.5])
    pulled, plain = (
        diffusion_dpo(policy_2P, reference_2P, Loss(beta=10, winner_pull=pull)).loss_P for pull in (0.5, 0.0)
    )
    # beta/2 * pull * gain(winner), the gain being .1.
    assert torch.allclose(plain - pulled, torch.tensor([0.25]))
    (gradient_2P,) = torch.autograd.grad((pulled - plain).sum(), policy_2P)
    assert torch.allclose(gradient_2P, torch.tensor([2.5, 0.0]))


def test_only_the_pairs_that_are_named_are_pulled():
    policy_2P, reference_2P = torch.tensor([0.4, 0.4, 0.5, 0.5]), torch.full((4,), 0.5)
    config = Loss(beta=10, winner_pull=0.5)
    one, neither = (
        diffusion_dpo(policy_2P, reference_2P, config, human_P=torch.tensor(pulled)).loss_P
        for pulled in ([True, False], [False, False])
    )
    assert torch.allclose(neither - one, torch.tensor([0.25, 0.0]))


def test_two_sided_terms_pull_the_winner_up_and_push_the_loser_down_apart():
    policy_2P = torch.tensor([0.6, 0.2], requires_grad=True)
    reference_2P = torch.tensor([0.5, 0.5])
    # The winner lost .1, the loser gained .3: both are wrong, whatever their difference is.
    pair = diffusion_dpo(policy_2P, reference_2P, Loss(objective="two_sided", beta=10))
    assert torch.allclose(
        pair.loss_P, -0.5 * (F.logsigmoid(torch.tensor(-1.0)) + F.logsigmoid(torch.tensor(-3.0)))
    )
    pair.loss_P.sum().backward()
    assert policy_2P.grad is not None and policy_2P.grad[0] > 0 > policy_2P.grad[1]


def test_ipo_pulls_the_margin_to_its_target_and_no_further():
    reference_2P = torch.tensor([0.5, 0.5])
    losses = [
        float(diffusion_dpo(policy_2P, reference_2P, Loss(objective="ipo", beta=10)).loss_P)
        for policy_2P in (torch.tensor([0.5, 0.5]), torch.tensor([0.4, 0.5]), torch.tensor([0.2, 0.5]))
    ]
    assert losses == pytest.approx([0.25, 0.0, 1.0], abs=1e-6)


def test_fine_tuning_on_winners_takes_no_notice_of_losers():
    policy_2P = torch.tensor([0.3, 0.7], requires_grad=True)
    loss = diffusion_dpo(policy_2P, torch.tensor([0.5, 0.5]), Loss(objective="winner")).loss_P.mean()
    loss.backward()
    assert loss.item() == pytest.approx(0.3)
    assert policy_2P.grad is not None and policy_2P.grad.tolist() == [1.0, 0.0]


def mirrored(reference_2CHW, policy_2CHW, target_2CHW, **settings):
    return diffusion_dpo(
        denoising_error(policy_2CHW, target_2CHW),
        denoising_error(reference_2CHW, target_2CHW),
        Loss(objective="mirrored", beta=10, **settings),
        moved_2P=denoising_error(policy_2CHW, reference_2CHW),
    ).loss_P


@pytest.mark.parametrize("step", [0.25, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mirrored_winners_are_learned_and_losers_learned_the_other_way(step, smoothing):
    reference, policy, target = torch.randn(3, 2, 4, 3, 3)
    ahead, back = reference + step * (policy - reference), reference - step * (policy - reference)

    def lowered(row, prediction):
        return F.mse_loss(reference[row], target[row]) - F.mse_loss(prediction[row], target[row])

    margins = [10 / (2 * step) * (lowered(w, ahead) + lowered(1 - w, back)) for w in (0, 1)]
    expected = -(1 - smoothing) * F.logsigmoid(margins[0]) - smoothing * F.logsigmoid(margins[1])
    found = mirrored(reference, policy, target, mirrored_step=step, label_smoothing=smoothing)
    assert torch.allclose(found, expected, atol=1e-5)


def test_making_a_loser_worse_whichever_way_lowers_the_dpo_loss_and_raises_the_mirrored_one():
    reference, target = torch.zeros(2, 2, 1, 1), torch.zeros(2, 2, 1, 1)
    target[:, 0] = 0.5  # What is wrong with the reference's prediction is in the first channel,
    policy = reference.clone()
    policy[1, 1] = 0.5  # and the loser's is moved in the second.
    plain = diffusion_dpo(
        denoising_error(policy, target), denoising_error(reference, target), Loss(beta=10)
    ).loss_P
    assert plain < math.log(2) < mirrored(reference, policy, target)


def test_a_setting_that_an_objective_would_not_use_is_refused():
    with pytest.raises(ValueError, match="two_sided has no label_smoothing"):
        Loss(objective="two_sided", label_smoothing=0.1)
    with pytest.raises(ValueError, match="winner has no winner_pull"):
        Loss(objective="winner", winner_pull=0.5)
    with pytest.raises(ValueError, match="winner has no winner_penalty"):
        Loss(objective="winner", winner_penalty=1.0)
    with pytest.raises(ValueError, match="mirrored has no winner_penalty"):
        Loss(objective="mirrored", winner_penalty=1.0)
    with pytest.raises(ValueError, match="mirrored has no safeguard"):
        Loss(objective="mirrored", safeguard=True)


def test_a_margin_is_antisymmetric():
    reference_2P, policy_2P = torch.rand(8), torch.rand(8)
    turned = [torch.cat(list(reversed(error.chunk(2)))) for error in (policy_2P, reference_2P)]
    assert torch.allclose(
        diffusion_dpo(policy_2P, reference_2P, Loss()).margin_P, -diffusion_dpo(*turned, Loss()).margin_P
    )


def test_the_gradient_lowers_the_winners_error_and_raises_the_losers():
    policy_2P = torch.tensor([0.5, 0.5], requires_grad=True)
    diffusion_dpo(policy_2P, torch.tensor([0.5, 0.5]), Loss(beta=10)).loss_P.mean().backward()
    assert policy_2P.grad is not None
    assert policy_2P.grad[0] > 0 > policy_2P.grad[1]


def test_the_error_is_a_mean_over_latent_dimensions_and_keeps_the_batch():
    prediction, target = torch.zeros(3, 4, 2, 2), torch.ones(3, 4, 2, 2)
    target[1] *= 2
    assert torch.equal(denoising_error(prediction, target), torch.tensor([1.0, 4.0, 1.0]))


@pytest.mark.parametrize("count", [1, 7, 16])
def test_timesteps_of_a_batch_come_one_from_each_slice(count):
    timesteps = stratified_timesteps(count, 1000, torch.Generator().manual_seed(0))
    slices = (timesteps.sort().values * count // 1000).tolist()
    assert all(abs(found - wanted) <= 1 for found, wanted in zip(slices, range(count), strict=True))
    assert timesteps.min() >= 0 and timesteps.max() <= 999


def test_timesteps_stay_in_their_share_of_the_range():
    timesteps = stratified_timesteps(16, 1000, torch.Generator().manual_seed(0), (0.8, 0.9))
    assert 800 <= timesteps.min() < 810 and 890 <= timesteps.max() <= 900


def test_what_losers_teach_is_taken_as_far_as_winners_do_not_lose_by_it():
    generator = torch.Generator().manual_seed(0)
    shares = []
    for scale in (0.1, 1.0, 10.0) * 20:
        winners, losers = [
            [torch.randn(2, 3, generator=generator), torch.randn(5, generator=generator)] for _ in range(2)
        ]
        losers = [scale * one for one in losers]
        share = safe_share(winners, losers)
        inner = sum(float((w * (w + share * own)).sum()) for w, own in zip(winners, losers, strict=True))
        assert 0 <= share <= 1 and inner >= -1e-4
        # The largest such share: all of it, or so much that winners just keep what they have.
        assert share == 1 or abs(inner) < 1e-4
        shares.append(float(share))
    assert min(shares) < 0.5 and shares.count(1.0) > 20
