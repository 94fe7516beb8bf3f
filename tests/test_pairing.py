import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sail.pairing import best_and_worst, most_different, ranked_self_pairs

rewards_N = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


@given(rewards_N)
def test_best_has_the_highest_and_worst_the_lowest_reward(rewards):
    chosen = best_and_worst(rewards)
    if not chosen:
        assert len(set(rewards)) == 1
    else:
        ((best, worst),) = chosen
        assert (rewards[best], rewards[worst]) == (max(rewards), min(rewards))


@given(rewards_N, st.integers(1, 5))
def test_pairs_go_inwards_and_share_no_candidate(rewards, count):
    chosen = best_and_worst(rewards, count)
    assert len(chosen) <= min(count, len(rewards) // 2)
    margins = [rewards[best] - rewards[worst] for best, worst in chosen]
    assert margins == sorted(margins, reverse=True) and all(margin > 0 for margin in margins)
    assert len({index for pair in chosen for index in pair}) == 2 * len(chosen)


def test_the_two_candidates_farthest_apart_are_shown_first_and_none_is_shown_twice():
    places = [0.0, 1.0, 5.0, 5.5, 9.0]
    distance = [[abs(one - other) for other in places] for one in places]
    assert most_different(distance, 1) == [(0, 4)]
    assert most_different(distance, 2) == [(0, 4), (1, 3)]
    assert most_different(distance, 0) == []


@given(st.integers(2, 9).flatmap(lambda n: st.lists(st.integers(0, 4), min_size=n * n, max_size=n * n)))
def test_each_pair_shown_is_the_farthest_of_the_candidates_that_are_left(distances):
    count = math.isqrt(len(distances))
    distance = [distances[row * count : (row + 1) * count] for row in range(count)]
    left = set(range(count))
    for pair in most_different(distance, count // 2):
        assert pair == max(combinations(sorted(left), 2), key=lambda both: distance[both[0]][both[1]])
        left -= set(pair)


def test_equal_rewards_make_no_pair():
    assert best_and_worst([0.5, 0.5, 0.5]) == []
    for choose in ("best_worst", "random"):
        assert ranked_self_pairs(["a fox"], [[0.5, 0.5]], lambda *_: 0.1, choose=choose) == []


def test_what_is_not_clear_enough_is_no_pair():
    rewards = [[0.0, 1.0], [2.0, 0.0], [0.0, 0.4]]
    pairs = ranked_self_pairs(["a", "b", "c"], rewards, lambda *_: 0.1, min_margin=1.0)
    assert [(pair.prompt, pair.margin, pair.rank) for pair in pairs] == [("b", 2.0, 0), ("a", 1.0, 1)]


def test_the_larger_margin_ranks_first_whatever_its_standard_error():
    errors = {0: 0.1, 1: 4.0}
    pairs = ranked_self_pairs(
        ["nearly alike", "far apart"], [[0.0, 1.0], [2.0, 0.0]], lambda prompt, *_: errors[prompt]
    )
    assert [(pair.prompt, pair.rank) for pair in pairs] == [("far apart", 0), ("nearly alike", 1)]
    assert [pair.margin_error for pair in pairs] == [4.0, 0.1]


def test_a_pair_names_its_candidates_rewards_and_margin():
    (pair,) = ranked_self_pairs(["a fox"], [[0.1, 0.9, -0.3]], lambda *_: 0.2)
    assert (pair.prompt_index, pair.winner, pair.loser) == (0, 1, 2)
    assert (pair.winner_reward, pair.loser_reward) == (0.9, -0.3)
    assert (pair.margin, pair.margin_error) == (pytest.approx(1.2), 0.2)


def test_a_prompt_gives_as_many_self_pairs_as_asked_for():
    pairs = ranked_self_pairs(["a fox"], [[0.0, 3.0, 1.0, 2.0, 1.5]], lambda *_: 1.0, per_prompt=2)
    assert [(pair.winner, pair.loser) for pair in pairs] == [(1, 0), (3, 2)]
    assert [pair.rank for pair in pairs] == [0, 1]


def test_the_error_of_a_margin_is_asked_for_its_own_winner_and_loser():
    asked = []
    ranked_self_pairs(["a", "b"], [[0, 1], [3, 2]], lambda *which: asked.append(which) or 1.0)
    assert asked == [(0, 1, 0), (1, 0, 1)]


def test_pairs_by_lot_are_ordered_by_reward_the_same_each_time_and_not_only_the_extremes():
    rewards = [[3.0, 1.0, 2.0, 0.0]] * 40
    pairs, again = (
        ranked_self_pairs(["a fox"] * 40, rewards, lambda *_: 1.0, choose="random", noise_seed=1)
        for _ in range(2)
    )
    assert pairs == again
    assert all(pair.winner_reward > pair.loser_reward for pair in pairs)
    assert len({(pair.winner, pair.loser) for pair in pairs}) == 6


def test_pairs_of_equal_margin_keep_the_order_of_their_prompts():
    pairs = ranked_self_pairs(["a", "b", "c"], [[1, 0]] * 3, lambda *_: 1.0)
    assert [pair.prompt for pair in pairs] == ["a", "b", "c"]


def test_prompts_and_rewards_must_be_as_many():
    with pytest.raises(ValueError):
        ranked_self_pairs(["a", "b"], [[1, 0]], lambda *_: 1.0)
