"""In which order pairs come."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

from annotator.ordering import Known, Lot, next_of
from annotator.rows import Order, PairState

NOTHING = Known()
PROMPTS = ["a red fox", "a red fox at night", "a red fox in snow", "a blue boat"]


def pairs(count: int, **changes: object) -> list[PairState]:
    return [pair(f"p{number}", number, PROMPTS[number % 4], **changes) for number in range(count)]


def pair(uid: str, ordinal: int, prompt: str = "a", **changes: object) -> PairState:
    return PairState(
        id=uid,
        ordinal=ordinal,
        prompt=prompt,
        one=f"{uid}-1",
        two=f"{uid}-2",
        **changes,  # type: ignore[arg-type]
    )


def chosen(found: list[PairState], order: Order, known: Known = NOTHING, count: int = 200) -> list[str]:
    return [how for _, how in islice(next_of(found, order, known, Random(1)), count)]


def test_every_open_pair_comes_once_in_every_order() -> None:
    for order in ("random", "diverse", "uncertain", "disagreement"):
        came = [pair.id for pair, _ in next_of(pairs(50), order, Known(), Random(0))]  # type: ignore[arg-type]
        assert sorted(came) == sorted(pair.id for pair in pairs(50)), order


def test_a_fifth_comes_by_lot_whatever_the_order() -> None:
    known = Known(margins={f"p{number}": 0.1 * number for number in range(400)})
    for order in ("diverse", "uncertain"):
        by_lot = chosen(pairs(400), order, known).count("random")  # type: ignore[arg-type]
        assert 25 <= by_lot <= 55, (order, by_lot)


def test_diverse_begins_with_words_that_were_not_seen() -> None:
    known = Known(words_seen={"a": 2, "red": 2, "fox": 2, "at": 1, "night": 1})
    ranked = next(pair for pair, how in next_of(pairs(40), "diverse", known, Random(0)) if how == "diverse")
    assert ranked.prompt == "a blue boat"


def test_uncertain_begins_with_the_margin_nearest_to_zero_and_leaves_the_rest_to_the_lot() -> None:
    known = Known(margins={"p1": 2.0, "p2": -0.1, "p3": 0.5})
    came = [(pair.id, how) for pair, how in next_of(pairs(30), "uncertain", known, Random(2))]
    ranked = [pair for pair, how in came if how == "uncertain"]
    by_lot = {pair for pair, how in came if how == "random"}
    assert ranked == sorted(ranked, key=lambda pair: abs(known.margins[pair]))
    assert {"p1", "p2", "p3"} - set(ranked) <= by_lot and len(came) == 30


def test_without_a_judge_uncertain_is_by_lot() -> None:
    assert set(chosen(pairs(20), "uncertain")) == {"random"}


def test_disagreement_asks_again_about_what_is_disputed_or_contradicted() -> None:
    disputed = pair("d", 90, judged=True, answered_by=frozenset("ab"), for_one=1, for_two=1)
    contradicted = pair("c", 91, judged=True, answered_by=frozenset("a"), for_one=1)
    known = Known(contradicted=frozenset("c"))
    came = {
        one.id: how
        for one, how in next_of([*pairs(9), disputed, contradicted], "disagreement", known, Random(0))
    }
    assert came["d"] == came["c"] == "disagreement" and len(came) == 11


def test_disagreement_has_some_pairs_that_somebody_else_answered() -> None:
    answered = pairs(200, judged=True, answered_by=frozenset("a"), for_one=1)
    both = [*answered, *[pair(f"o{n}", 300 + n) for n in range(200)]]
    overlap = chosen(both, "disagreement").count("overlap")
    assert 5 <= overlap <= 30


def test_what_does_not_fit_never_comes_and_all_else_once() -> None:
    answered = pairs(20, judged=True, answered_by=frozenset("a"), for_one=1, for_two=1)
    both = [*answered, *[pair(f"o{n}", 300 + n) for n in range(20)]]
    known = Known(margins={f"o{n}": 0.1 * n for n in range(10)})
    for order in ("random", "diverse", "uncertain", "disagreement"):
        found = next_of(both, order, known, Random(0), fits=lambda pair: pair.ordinal % 2 == 0)  # type: ignore[arg-type]
        came = [pair.id for pair, _ in found]
        expected = both if order == "disagreement" else both[20:]
        assert sorted(came) == sorted(pair.id for pair in expected if pair.ordinal % 2 == 0), order


def test_by_lot_each_pair_that_fits_is_as_likely_as_any_other() -> None:
    came: Counter[tuple[str, ...]] = Counter()
    for turn in range(6000):
        lot = Lot(pairs(7), lambda pair: pair.ordinal < 4, Random(turn))
        came[tuple(sorted(pair.id for pair in lot.some(2)))] += 1
    assert len(came) == 6 and all(880 <= count <= 1120 for count in came.values()), came


def test_the_next_ten_of_very_many_pairs_are_found_by_looking_at_as_few_as_of_some() -> None:
    def looked_at(count: int, order: Order) -> int:
        asked: list[str] = []

        def fits(pair: PairState) -> bool:
            asked.append(pair.id)
            return pair.ordinal % 3 > 0

        assert len(list(islice(next_of(pairs(count), order, known, Random(2), fits=fits), 10))) == 10
        return len(asked)

    known = Known(margins={f"p{number}": 0.1 * number for number in range(30)})
    orders: tuple[Order, ...] = ("random", "diverse", "uncertain", "disagreement")
    assert all(looked_at(50_000, order) < 1.3 * looked_at(5000, order) for order in orders)
    assert looked_at(50_000, "random") < 40
