"""Who gets which pair next."""

from __future__ import annotations

from pathlib import Path

from annotating import drawn, label, make_store

from annotator.assignment import Assignments
from annotator.store import Store


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def start(tmp_path: Path, count: int, **settings: float) -> tuple[Store, Assignments, Clock]:
    store, clock = make_store(tmp_path / "p"), Clock()
    drawn(store, count)
    return store, Assignments(store, clock=clock, **settings), clock  # type: ignore[arg-type]


def test_pairs_come_in_the_order_in_which_they_were_drawn(tmp_path: Path) -> None:
    store, assignments, _ = start(tmp_path, 8, pairs_per_person=5)
    queue = assignments.next_pairs("ann")
    assert [pair.ordinal for pair in queue.pairs] == [0, 1, 2, 3, 4]
    label(store, queue.pairs[0], "left")
    assert [pair.ordinal for pair in assignments.next_pairs("ann").pairs] == [1, 2, 3, 4, 5]


def test_two_people_get_different_pairs(tmp_path: Path) -> None:
    _, assignments, _ = start(tmp_path, 8, pairs_per_person=4)
    ann, bob = assignments.next_pairs("ann"), assignments.next_pairs("bob")
    assert not {pair.id for pair in ann.pairs} & {pair.id for pair in bob.pairs}
    assert len(bob.pairs) == 4


def test_when_all_are_held_by_others_it_says_how_many(tmp_path: Path) -> None:
    _, assignments, _ = start(tmp_path, 3)
    assignments.next_pairs("ann")
    queue = assignments.next_pairs("bob")
    assert (queue.pairs, queue.with_others) == ([], 3)


def test_a_stale_lease_is_taken_over_and_a_late_label_still_counts(tmp_path: Path) -> None:
    store, assignments, clock = start(tmp_path, 2)
    (first, _) = assignments.next_pairs("ann").pairs
    clock.now = 121
    assert next(pair.id for pair in assignments.next_pairs("bob").pairs) == first.id
    label(store, first, "left", by="ann")
    assert store.counts().labelled == 1


def test_use_renews_a_lease(tmp_path: Path) -> None:
    _, assignments, clock = start(tmp_path, 2)
    for clock.now in (0.0, 100.0, 200.0):
        assignments.next_pairs("ann")
    clock.now = 310.0
    assert assignments.next_pairs("bob").pairs == []


def test_a_page_that_closes_gives_its_pairs_back(tmp_path: Path) -> None:
    _, assignments, _ = start(tmp_path, 2)
    assignments.next_pairs("ann")
    assignments.release("ann")
    assert len(assignments.next_pairs("bob").pairs) == 2
