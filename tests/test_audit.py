"""The sample that is judged blind, where winners stand, and what the sample says."""

from __future__ import annotations

import random

import pytest

from annotator import audit
from annotator.audit import Audited
from sail.records import Decision

IDS = [f"pair-{number}" for number in range(400)]


@pytest.mark.parametrize(
    ("pairs", "size"), [(0, 0), (1, 1), (9, 9), (64, 10), (100, 10), (101, 11), (400, 40)]
)
def test_the_sample_is_a_tenth_but_at_least_ten_and_never_more_than_all(pairs: int, size: int) -> None:
    assert len(set(audit.sample(IDS[:pairs]))) == size


def test_the_sample_hangs_on_the_pairs_alone_and_not_on_their_order() -> None:
    mixed = random.Random(0).sample(IDS, len(IDS))
    assert audit.sample(mixed) == audit.sample(IDS) != IDS[:40]


def test_winners_stand_left_as_often_as_right_and_stay_there() -> None:
    sides = [audit.winner_side(one) for one in IDS]
    assert sides == [audit.winner_side(one) for one in IDS]
    assert 150 < sides.count("left") < 250


def test_to_choose_the_judges_winner_is_to_approve() -> None:
    for one in IDS[:20]:
        winner = audit.winner_side(one)
        assert audit.decision_for(one, winner) == "approve"
        assert audit.decision_for(one, "right" if winner == "left" else "left") == "flip"


def test_a_pair_is_as_clear_as_its_margin_is_large_beside_a_typical_one_of_its_run() -> None:
    margins = {"large": 7.0, "small": 1.0, "against": -5.0, "none": 0.0}
    typical = ((49 + 1 + 25 + 0) / 4) ** 0.5
    assert audit.clarities(margins) == pytest.approx(
        {"large": 7 / typical, "small": 1 / typical, "against": -5 / typical, "none": 0}
    )


def test_clarity_does_not_hang_on_the_scale_of_rewards() -> None:
    margins = {one: 0.3 * number for number, one in enumerate(IDS)}
    larger = {one: 1000 * margin for one, margin in margins.items()}
    assert audit.clarities(larger) == pytest.approx(audit.clarities(margins))


def test_where_no_margin_differs_from_0_nothing_is_clear() -> None:
    assert (audit.clarities({}), audit.clarities({"a": 0.0, "b": 0.0})) == ({}, {"a": 0.0, "b": 0.0})


def test_certainty_is_said_in_words_by_clarity() -> None:
    assert [audit.certainty(value) for value in (2.0, 1.0, 0.99, 0.5, 0.49, -3.0)] == [
        "sure", "sure", "fairly sure", "fairly sure", "a guess", "a guess",
    ]  # fmt: skip


def audited(clarity: float, decision: Decision) -> Audited:
    return Audited(pair=f"{clarity} {decision}", clarity=clarity, decision=decision)


def test_flipped_and_dropped_pairs_are_the_judges_errors_and_are_counted_over_each_threshold() -> None:
    found = [audited(-0.1, "flip"), audited(0.2, "drop"), audited(1.0, "flip"), audited(3.0, "approve")]
    assert (audit.error(found).value, audit.error(found).n) == (0.75, 4)
    by_threshold = {one.over: one.error for one in audit.by_threshold(found)}
    assert (by_threshold[0.0].value, by_threshold[0.0].n) == (pytest.approx(2 / 3), 3)
    assert (by_threshold[1.0].value, by_threshold[1.0].n) == (0.5, 2)
    assert (by_threshold[2.0].value, by_threshold[2.0].n) == (0.0, 1)
    assert audit.error([]).value is None
