from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sail.annotate import ShownPair
from sail.config import MAX_PROMPT_CHARS, Loss, Mixup, Scoring
from sail.loop import human_pairs, summary
from sail.model_ref import ModelRef
from sail.records import Interval, LatentsRef, TrainingPair
from sail.rounds import (
    Round,
    current,
    is_held_out,
    kept,
    next_step,
    parse_prompts,
    propose_request,
    require_enough_pairs,
    seed_request,
    split_prompts,
    take_prompts,
    train_request,
    trainable,
)
from sail.settings import LoopSettings

SETTINGS = LoopSettings()
MODEL = ModelRef(source="somewhere")


def a_round(number: int, *, accepted: bool = True, parent: int | None = None) -> Round:
    return Round(
        round=number,
        parent=parent,
        adapter=f"/adapters/{number}",
        sha256=f"hash{number}",
        human_pairs=40,
        self_pairs=0,
        self_fraction=0.0,
        judge_accuracy=Interval(value=0.7, low=0.4, high=0.9, n=10),
        diversity_ratio=1.0,
        saturation_ratio=1.0,
        winner_gain=0.1,
        loser_gain=-0.1,
        accepted=accepted,
        reasons=() if accepted else ("Diversity fell to 0.5 of the base model's.",),
        seconds=1.0,
    )


def step_after(rounds: list[Round], *, trainable: int = 40, drawn: int = 50, proposed: int | None = None):
    step = next_step(
        SETTINGS,
        trainable_pairs=trainable,
        drawn_pairs=drawn,
        rounds=rounds,
        policy=current(rounds),
        proposed=proposed,
    )
    return step.name, step.round


# Pairs from labels


@pytest.mark.parametrize(("hold", "sources"), [(0.0, ["human"]), (0.5, ["human", "tie", "tie"])])
def test_ties_are_pairs_where_the_settings_hold_them_and_are_never_held_out(hold, sources):
    latents = [LatentsRef(file="latents", row=row) for row in range(2)]
    shown = [ShownPair(ordinal, f"prompt {ordinal}", Path(), Path(), *latents) for ordinal in range(5)]
    values = ("left", "tie", "tie", "both_bad", "skip")
    labels = {pair.id: value for pair, value in zip(shown, values, strict=True)}
    settings = LoopSettings(loss=Loss(hold_ties=hold), held_out_every=5)
    pairs = human_pairs(shown, labels, settings)
    assert [pair.source for pair in pairs] == sources
    assert not any(pair.held_out for pair in pairs) and is_held_out(2, settings)
    assert trainable(pairs) == 1


def test_a_round_tells_how_many_ties_it_held():
    assert "human + 0 self pairs, judge" in summary(a_round(0))
    assert ", 1 tie held, judge" in summary(a_round(0).model_copy(update={"tie_pairs": 1}))
    assert "human + 0 self pairs, 7 ties held, judge" in summary(
        a_round(0).model_copy(update={"tie_pairs": 7})
    )


# Held-out pairs and prompts


def test_whether_a_pair_is_held_out_never_changes_as_pairs_are_added():
    held = set()
    for count in range(1, 101):
        now = {ordinal for ordinal in range(count) if is_held_out(ordinal, SETTINGS)}
        assert held <= now and now - held <= {count - 1}
        held = now
    assert len(held) == 100 // SETTINGS.held_out_every


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=2, max_size=200, unique=True))
def test_every_prompt_is_learned_from_or_held_out_and_never_both(prompts):
    learned, held = split_prompts(prompts, SETTINGS)
    assert learned and held
    assert not set(learned) & set(held)
    assert sorted(learned + held) == sorted(prompts)
    assert len(held) <= max(1, len(prompts) // 5)


def test_held_out_prompts_are_spread_over_the_list():
    _, held = split_prompts([str(number) for number in range(400)], SETTINGS)
    positions = [int(prompt) for prompt in held]
    assert len(held) == 16 and positions[0] < 100 and positions[-1] > 300


def test_prompts_of_pairs_that_are_there_already_are_held_out_only_where_there_are_no_others():
    prompts = [str(number) for number in range(400)]
    learned = set(prompts[100:])
    held = split_prompts(prompts, SETTINGS, learned)[1]
    assert held == split_prompts(prompts[:100], SETTINGS)[1] and not learned & set(held)
    assert split_prompts(prompts, SETTINGS, set(prompts)) == split_prompts(prompts, SETTINGS)


def test_one_prompt_alone_is_both():
    assert split_prompts(["a fox"], SETTINGS) == (["a fox"], ["a fox"])


def test_no_prompt_is_held_out_where_nothing_is_monitored():
    assert split_prompts(["a", "b"], LoopSettings(monitor_prompts=0)) == (["a", "b"], [])


# Prompts


def test_prompts_are_one_a_line_without_doubles_and_empty_lines():
    assert parse_prompts("a fox\n\n  a cat \r\na fox\n") == ["a fox", "a cat"]


@pytest.mark.parametrize("text", ["", "\n \n\t\n"])
def test_a_file_without_prompts_is_refused(text):
    with pytest.raises(ValueError, match="There is no prompt"):
        parse_prompts(text)


def test_a_prompt_that_is_too_long_is_named_by_its_line():
    assert parse_prompts("x" * MAX_PROMPT_CHARS)
    with pytest.raises(ValueError, match=r"Line 2 has 10,000 characters; a prompt has at most 2,000"):
        parse_prompts("a fox\n" + "x" * 10_000)


@pytest.mark.parametrize("line", [b"\x89PNG\r\n".decode(errors="replace"), "a\x00fox", "a fox\x9f"])
def test_what_is_no_text_is_refused_with_its_line(line):
    with pytest.raises(ValueError, match=r"Line 2 has '\\.*which is no text. Is it a text file"):
        parse_prompts(f"ein schöner Fuchs 🦊 “in snow”\n{line}")


def test_no_prompt_is_taken_twice_while_fresh_ones_are_left():
    prompts = [str(number) for number in range(10)]
    first = take_prompts(prompts, [], 4)
    second = take_prompts(prompts, first, 4)
    third = take_prompts(prompts, first + second, 4)
    assert first == ["0", "1", "2", "3"] and second == ["4", "5", "6", "7"]
    assert third == ["8", "9", "0", "1"]


def test_a_lot_takes_from_all_of_a_sorted_list_and_takes_the_same_again():
    prompts = [f"{kind} {number}" for kind in ("fox", "owl", "car", "cup") for number in range(25)]
    taken = take_prompts(prompts, [], 20, lot=0)
    assert {prompt.split()[0] for prompt in taken} == {"fox", "owl", "car", "cup"}
    assert taken == take_prompts(prompts, [], 20, lot=0) != take_prompts(prompts, [], 20, lot=1)
    # What is added or goes moves no other prompt.
    fewer = [prompt for prompt in prompts if prompt != taken[0]]
    assert take_prompts(fewer, [], 19, lot=0) == taken[1:]
    assert not set(take_prompts(prompts, taken, 80, lot=0)) & set(taken)


def test_when_prompts_run_out_those_used_longest_ago_come_back_first():
    assert take_prompts(["a", "b", "c"], ["c", "a", "b", "c"], 2) == ["a", "b"]


def test_fewer_prompts_are_taken_where_there_are_fewer():
    assert take_prompts(["a"], [], 5) == ["a"]


# The walk


def test_the_loop_walks_draw_label_train_propose_review_train():
    assert step_after([], trainable=0, drawn=0) == ("draw", 0)
    assert step_after([], trainable=0, drawn=50) == ("label", 0)
    assert step_after([], trainable=7) == ("label", 0)
    assert step_after([], trainable=8) == ("train", 0)
    assert step_after([a_round(0)]) == ("propose", 1)
    assert step_after([a_round(0)], proposed=1) == ("review", 1)
    assert step_after([a_round(0), a_round(1)], proposed=1) == ("propose", 2)


def test_current_is_the_last_accepted_round():
    rounds = [a_round(0), a_round(1), a_round(2, accepted=False)]
    assert current(rounds) == rounds[1]


def test_without_an_accepted_round_the_base_model_is_current():
    assert current([]) is None
    assert current([a_round(0, accepted=False)]) is None


def test_after_a_round_that_was_not_accepted_the_last_accepted_one_proposes():
    rounds = [a_round(0), a_round(1, accepted=False)]
    assert step_after(rounds, proposed=1) == ("propose", 2)
    request = propose_request(SETTINGS, MODEL, ["a fox"], number=2, policy=current(rounds), parent=None)
    assert (request.round, request.adapter) == (2, "hash0")
    assert step_after(rounds, proposed=request.round) == ("review", 2)


def test_after_a_first_round_that_was_not_accepted_there_is_no_judge_so_training_comes_again():
    assert step_after([a_round(0, accepted=False)]) == ("train", 1)


# Requests


def test_seed_pairs_are_two_images_of_the_base_model():
    request = seed_request(SETTINGS, MODEL, ["a", "b"])
    assert (request.num_candidates, request.pairs_to_show) == (4, 1)
    assert (request.adapter, request.scoring, request.round) == (None, None, 0)
    more = seed_request(SETTINGS, MODEL, ["a"], pairs_per_prompt=3)
    assert (more.num_candidates, more.pairs_to_show) == (12, 3)
    with pytest.raises(ValueError, match="300 pairs of one prompt need 1200 images of it, and 1000 is"):
        seed_request(SETTINGS, MODEL, ["a"], pairs_per_prompt=300)


def test_the_judge_is_scored_against_base_by_default_and_against_its_parent_on_request():
    against_parent = LoopSettings(scoring=Scoring(reference="parent"))
    policy, parent = a_round(1, parent=0), a_round(0)

    def reference(settings: LoopSettings, parent: Round | None) -> str | None:
        request = propose_request(settings, MODEL, ["a"], number=2, policy=policy, parent=parent)
        return request.reference_adapter

    assert reference(SETTINGS, parent) is None
    assert reference(against_parent, parent) == "hash0"
    assert reference(against_parent, None) is None


def test_self_pairs_are_to_be_as_clear_as_a_share_of_what_people_see():
    settings = SETTINGS.model_copy(update={"min_margin": 0.5})

    def asked(typical: float | None) -> float:
        policy = a_round(0).model_copy(update={"human_margin": typical})
        return propose_request(settings, MODEL, ["a"], number=1, policy=policy, parent=None).min_margin

    # Of a margin at a beta of 1.
    assert (asked(0.6 / SETTINGS.loss.beta), asked(None)) == (pytest.approx(0.3), 0)
    with pytest.raises(ValueError, match="Set min_margin to 0"):
        LoopSettings(min_margin=0.5, scoring=Scoring(reference="parent"))


def test_a_round_is_trained_with_what_suits_its_pairs_or_with_what_somebody_asks_for():
    settings = SETTINGS.model_copy(update={"mixup": Mixup(self_fraction=0.75)})
    ref = LatentsRef(file="latents", row=0)
    human, own = (
        TrainingPair(id=source, prompt="a", winner=ref, loser=ref, source=source)
        for source in ("human", "self")
    )
    held_out = human.model_copy(update={"held_out": True})

    def fraction(own_pairs: int, asked: float | None = None) -> float:
        pairs = [*[human] * 40, *[held_out] * 40, *[own] * own_pairs]
        request = train_request(
            settings, MODEL, number=1, parent=None, held_out_prompts=[], pairs=pairs, self_fraction=asked
        )
        return request.mixup.self_fraction

    assert [fraction(own_pairs) for own_pairs in (0, 5, 10, 30, 99)] == [0.75, 1 / 3, 0.5, 0.75, 0.75]
    assert fraction(5, asked=0.75) == 0.75


def test_a_prompt_that_comes_back_is_drawn_with_other_noise():
    first, second = (
        propose_request(SETTINGS, MODEL, ["a"], number=number, policy=a_round(0), parent=None)
        for number in (1, 2)
    )
    assert len({first.noise_seed, second.noise_seed, seed_request(SETTINGS, MODEL, ["a"]).noise_seed}) == 3


def test_a_round_is_trained_from_its_parent_with_its_own_noise():
    first = train_request(SETTINGS, MODEL, number=0, parent=None, held_out_prompts=["a fox"], pairs=[])
    second = train_request(SETTINGS, MODEL, number=1, parent=a_round(0), held_out_prompts=["a fox"], pairs=[])
    assert (first.parent_adapter, second.parent_adapter) == (None, "hash0")
    assert first.optimisation.noise_seed != second.optimisation.noise_seed
    assert second.monitoring.prompts == ("a fox",)
    assert second.monitoring.model_copy(update={"prompts": ()}) == SETTINGS.monitoring


def test_too_few_pairs_get_a_sentence_with_both_numbers():
    require_enough_pairs(8, SETTINGS)
    with pytest.raises(ValueError, match=r"at least 8 pairs with a winner and has 7\. Label more"):
        require_enough_pairs(7, SETTINGS)


def test_a_round_is_made_from_what_its_run_measured():
    result = a_round(3).model_dump(mode="json") | {"adapter": "adapter", "stage_seconds": {"train": 1.0}}
    made = Round.from_result(result, number=3, parent=2, adapter="/runs/3/adapter")
    assert made == a_round(3, parent=2).model_copy(update={"adapter": "/runs/3/adapter"})


def test_of_few_self_pairs_at_least_one_goes_to_review():
    few = LoopSettings(keep_self_pairs=0.1)
    assert [kept(pairs, few) for pairs in (3, 14, 16, 40)] == [1, 1, 2, 4]
