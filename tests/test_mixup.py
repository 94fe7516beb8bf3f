import math
import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sail.mixup import Mixer, effective_fraction, plan, self_draws_among, suited_fraction
from sail.records import Source

fractions = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1))
counts = st.integers(1, 12)
seeds = st.integers(0, 2**31)


def mixer(human_pairs=5, self_pairs=3, self_fraction=0.25, noise_seed=0) -> Mixer:
    return Mixer(
        human_pairs=human_pairs, self_pairs=self_pairs, self_fraction=self_fraction, noise_seed=noise_seed
    )


def first(count: int, drawing: Mixer) -> list[tuple[Source, int]]:
    """The pairs that are drawn first."""
    return [drawing.draw(n) for n in range(count)]


@given(counts, counts, fractions, seeds)
def test_of_the_first_n_draws_floor_n_alpha_plus_half_are_self_pairs(human, own, alpha, seed):
    drawing = mixer(human, own, alpha, seed)
    drawn = 0
    for n in range(1, 60):
        drawn += drawing.draw(n - 1)[0] == "self"
        exact = math.floor(n * Fraction(alpha) + Fraction(1, 2))
        near_half = abs(n * Fraction(alpha) + Fraction(1, 2) - round(n * alpha + 0.5)) < Fraction(1, 10**9)
        assert drawn == exact or (near_half and abs(drawn - exact) == 1)


def test_a_batch_smaller_than_one_over_alpha_mixes_as_well():
    sides = [side for side, _ in first(8, mixer(self_fraction=0.25))]
    assert sides == ["human", "self", "human", "human", "human", "self", "human", "human"]


@given(counts, counts, fractions, seeds)
def test_a_side_shows_every_pair_once_before_any_comes_back(human, own, alpha, seed):
    drawing = mixer(human, own, alpha, seed)
    drawn = {"human": [], "self": []}
    for n in range(80):
        side, index = drawing.draw(n)
        drawn[side].append(index)
    for side, size in (("human", human), ("self", own)):
        for begin in range(0, len(drawn[side]), size):
            turn = drawn[side][begin : begin + size]
            assert set(turn) <= set(range(size)) and len(set(turn)) == len(turn)


def test_every_pass_has_an_order_of_its_own():
    drawing = mixer(human_pairs=30, self_pairs=0)
    passes = [tuple(drawing.draw(n)[1] for n in range(begin, begin + 30)) for begin in (0, 30, 60)]
    assert len(set(passes)) == 3


@given(counts, counts, fractions, seeds, st.randoms(use_true_random=False))
def test_the_nth_draw_depends_on_n_alone(human, own, alpha, seed, order):
    forward = [mixer(human, own, alpha, seed).draw(n) for n in range(40)]
    positions = list(range(40))
    order.shuffle(positions)
    drawing = mixer(human, own, alpha, seed)
    assert {n: drawing.draw(n) for n in positions} == dict(enumerate(forward))


def test_another_noise_seed_gives_another_order():
    assert first(20, mixer(30, 30, noise_seed=1)) != first(20, mixer(30, 30, noise_seed=2))


def test_the_order_does_not_depend_on_the_global_generator():
    random.seed(1)
    drawn = first(20, mixer())
    random.seed(2)
    assert first(20, mixer()) == drawn


def test_without_self_pairs_all_draws_are_human():
    assert {side for side, _ in first(50, mixer(self_pairs=0, self_fraction=0.9))} == {"human"}


def test_without_human_pairs_all_draws_are_self_pairs():
    assert {side for side, _ in first(50, mixer(human_pairs=0, self_fraction=0.1))} == {"self"}


def test_without_any_pair_the_error_says_to_label():
    with pytest.raises(ValueError, match="Label some pairs first"):
        effective_fraction(0.25, human_pairs=0, self_pairs=0)


few = st.integers(0, 12)


@given(few, few, fractions, st.integers(1, 10), st.integers(1, 8))
def test_the_plan_is_what_the_mixer_does(human, own, alpha, steps, batch_pairs):
    if human + own == 0:
        return
    planned = plan(alpha, human_pairs=human, self_pairs=own, steps=steps, batch_pairs=batch_pairs)
    sides = Counter(side for side, _ in first(steps * batch_pairs, mixer(human, own, alpha)))
    assert (sides["human"], sides["self"]) == (planned.human_draws, planned.self_draws)
    assert planned.human_draws == pytest.approx(planned.human_passes * human)
    assert planned.self_draws == pytest.approx(planned.self_passes * own)


@given(few, few, fractions)
def test_a_share_that_suits_draws_no_self_pair_more_often_than_so_many_times_a_human_one(human, own, asked):
    suited = suited_fraction(asked, 4, human_pairs=human, self_pairs=own)
    if asked == 1 or not human or not own:
        assert suited == asked
    else:
        assert suited / own <= 4 * (1 - suited) / human + 1e-9
        assert suited == asked or suited / own == pytest.approx(4 * (1 - suited) / human)
    assert suited_fraction(asked, None, human_pairs=human, self_pairs=own) == asked


def test_the_share_of_the_paper_is_a_quarter():
    assert self_draws_among(128, 0.25) == 32
