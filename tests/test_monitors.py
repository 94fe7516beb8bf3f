"""What the gate says of a round's images."""

import pytest

from sail.config import Monitoring
from sail.monitors import Beside, Measured, closed_because, spoiled_because
from sail.records import JudgedPair

LIMITS = Monitoring(min_diversity_ratio=0.6, max_saturation_ratio=2)


def test_images_within_the_bounds_are_accepted():
    assert spoiled_because(Beside(0.6, 2.0), LIMITS) == []
    assert spoiled_because(Beside(None, None), LIMITS) == []


@pytest.mark.parametrize(
    ("diversity", "saturation", "said"),
    [
        (0.52, 1.0, "differ 0.52 times as much as the base model's; the gate asks for 0.60."),
        (0.5979, 1.0, "differ 0.598 times as much as the base model's; the gate asks for 0.60."),
        (1.0, 0.31, "are 0.31 times as saturated as the base model's; the gate allows 0.50 to 2.00."),
        (1.0, 2.0004, "are 2.0004 times as saturated as the base model's; the gate allows 0.50 to 2.00."),
    ],
)
def test_a_figure_that_is_refused_is_seen_to_be_beyond_its_bound(diversity, saturation, said):
    (reason,) = spoiled_because(Beside(diversity, saturation), LIMITS)
    assert reason.endswith(said)


@pytest.mark.parametrize(
    ("wrong", "reasons"),
    [
        (12, ["Of pairs kept aside the judge is right on 0% of 12, at best 24%; the gate asks for 50%."]),
        (6, []),
    ],
)
def test_a_judge_that_cannot_be_as_right_as_is_asked_for_closes_the_gate(wrong, reasons):
    # What it learned from does not count for it.
    judged = [
        JudgedPair(id=str(number), margin=margin, margin_error=0.1, held_out=number < 12)
        for number, margin in enumerate([-1.0] * wrong + [1.0] * (40 - wrong))
    ]
    assert closed_because(Measured(judged, Beside()), LIMITS) == reasons


def test_a_handful_of_held_out_pairs_closes_no_gate():
    def closes(wrong: int, right: int = 0) -> bool:
        margins = [-1.0] * wrong + [1.0] * right
        judged = [
            JudgedPair(id=str(number), margin=margin, margin_error=0.1, held_out=True)
            for number, margin in enumerate(margins)
        ]
        return bool(closed_because(Measured(judged, Beside()), LIMITS))

    # Five wrong ones come to a tossed coin once in 32 times, six once in 64.
    assert [closes(wrong) for wrong in range(8)] == [False] * 6 + [True] * 2
    # Once in 28 times, and once in 51.
    assert [closes(wrong, right=1) for wrong in (7, 8)] == [False, True]
