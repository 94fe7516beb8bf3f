"""Who gets which pair next."""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random

import pytest
from annotating import drawn, label, make_store, run_now, undo

from annotator import assignment, jobs
from annotator.assignment import Assignments, Queue
from annotator.rows import Order
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


def ids(queue: Queue) -> list[str]:
    return [pair.id for pair in queue.pairs]


def test_the_pairs_before_a_person_stay_in_their_order_and_are_filled_up(tmp_path: Path) -> None:
    store, assignments, _ = start(tmp_path, 8, pairs_per_person=5)
    before = ids(assignments.next_pairs("ann"))
    store.set_order("diverse", by="ann")
    label(store, store.show_pairs(before[:1], to="ann")[0], "left")
    after = ids(assignments.next_pairs("ann"))
    assert after[:4] == before[1:] and len(set(after)) == 5 and before[0] not in after


def test_how_a_pair_came_to_be_shown_is_kept(tmp_path: Path) -> None:
    store, assignments, _ = start(tmp_path, 8)
    assignments.next_pairs("bob")
    chosen = {row["chosen"] for row in store._rows("select chosen from assignments where person = 'bob'")}
    assert chosen == {"random"}


@pytest.mark.parametrize(
    ("order", "name"), [("uncertain", "judged_open.jsonl"), ("disagreement", "judged_pairs.jsonl")]
)
def test_pairs_come_although_what_the_judge_says_cannot_be_read(
    tmp_path: Path, order: Order, name: str
) -> None:
    store, assignments, _ = start(tmp_path, 8)
    for pair in store.show_pairs(ids(assignments.next_pairs("ann"))[:4], to="ann"):
        label(store, pair, "left")
    run = run_now(store, jobs.train(store, by="ann"))
    store.set_order(order, by="ann")
    (store.run_folder(run) / name).write_text("half a line\n")
    assert len(ids(assignments.next_pairs("ann"))) == 4 and jobs.open_margins(store) == {}


def test_after_a_restart_a_page_keeps_the_pairs_it_has(tmp_path: Path) -> None:
    store, assignments, _ = start(tmp_path, 8, pairs_per_person=4)
    before = ids(assignments.next_pairs("ann"))
    anew = Assignments(store, pairs_per_person=4)
    assert ids(anew.next_pairs("ann", holding=before)) == before


def test_what_somebody_else_took_meanwhile_is_not_given_back(tmp_path: Path) -> None:
    _, assignments, clock = start(tmp_path, 4, pairs_per_person=2)
    before = ids(assignments.next_pairs("ann"))
    clock.now = 121
    for person in ("bob", "cleo"):
        assignments.next_pairs(person)
    queue = assignments.next_pairs("ann", holding=before)
    assert (queue.pairs, queue.with_others, queue.holders) == ([], 4, {"bob", "cleo"})


def test_who_comes_back_is_not_asked_what_others_answered_meanwhile(tmp_path: Path) -> None:
    store, assignments, clock = start(tmp_path, 8, pairs_per_person=4)
    before = ids(assignments.next_pairs("ann"))
    clock.now += assignment.LEASE_S + 1
    for pair in store.show_pairs(ids(assignments.next_pairs("bob")), to="bob"):
        if pair.id in before:
            label(store, pair, "left", by="bob")
    assignments.release("bob")
    answered = {pair.id for pair in store.pair_states() if pair.judged}
    again = ids(assignments.next_pairs("ann", holding=before))
    assert again[: len(before) - len(answered)] == [pair for pair in before if pair not in answered]
    assert not answered & set(again)


def test_a_pair_that_was_taken_back_is_held_at_once(tmp_path: Path) -> None:
    store, assignments, _ = start(tmp_path, 3, pairs_per_person=1)
    (first,) = assignments.next_pairs("ann").pairs
    given = label(store, first, "left")
    assignments.next_pairs("ann")
    undo(store, given)
    assert ids(assignments.next_pairs("ann", holding=[first.id])) == [first.id]
    assert first.id not in ids(assignments.next_pairs("bob"))


def test_many_people_at_once_never_hold_the_same_pair(tmp_path: Path) -> None:
    _, assignments, _ = start(tmp_path, 40, pairs_per_person=4)
    held: dict[str, list[str]] = {}
    threads = [
        threading.Thread(target=lambda name=f"p{n}": held.update({name: ids(assignments.next_pairs(name))}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given = [pair for pairs in held.values() for pair in pairs]
    assert len(given) == len(set(given)) == 32


def test_a_refill_looks_at_no_more_pairs_where_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, looked_at = make_store(tmp_path / "p"), [0]
    assignments = Assignments(store, chance=Random(0))

    def is_askable(*asked: object) -> bool:
        looked_at[0] += 1
        return plain(*asked)  # type: ignore[arg-type]

    plain = assignment._is_askable
    monkeypatch.setattr(assignment, "_is_askable", is_askable)

    def cost() -> int:
        looked_at[0] = 0
        (first, *_) = assignments.next_pairs("ann").pairs
        label(store, first, "left")
        assert len(assignments.next_pairs("ann").pairs) == 10
        return looked_at[0]

    drawn(store, 20)
    cost()
    few = cost()
    drawn(store, 300)
    assert cost() <= few + 1


def test_diverse_goes_by_the_words_of_what_is_answered_now(tmp_path: Path) -> None:
    store, assignments, _ = start(tmp_path, 10)
    prompts = {state.id: state.prompt for state in store.pair_states()}
    pairs = store.show_pairs(list(prompts), to="ann")

    def known() -> dict[str, int]:
        seen = assignments._known("diverse").words_seen
        return {word: count for word, count in seen.items() if count}

    given = [label(store, pair, value) for pair, value in zip(pairs, ("left", "skip"), strict=False)]
    answered = [word for pair in pairs[:2] for word in prompts[pair.id].split()]
    assert known() == {word: answered.count(word) for word in answered}
    label(store, pairs[0], "tie")
    assert known() == {word: answered.count(word) for word in answered}
    undo(store, given[1])
    assert known() == dict.fromkeys(prompts[pairs[0].id].split(), 1)


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
    assert first.id in ids(assignments.next_pairs("bob"))
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
