"""The alignment benchmark's own arithmetic, on made-up units. Its training is the engine's, tested there."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from annotator.rows import Order
from benchmarks import judge
from benchmarks.alignment import figures, pool, report, study
from benchmarks.alignment.__main__ import main as command_line
from benchmarks.alignment.asking import asked_about
from benchmarks.alignment.checking import OtherRounds
from benchmarks.alignment.figures import draw_figures
from benchmarks.alignment.methods import METHODS, changed, method_named, settings_of
from benchmarks.alignment.pool import TABLE, TASTES, TUNING, temperature_for
from benchmarks.alignment.study import STARTER
from benchmarks.alignment.table import (
    Table,
    gain,
    interval,
    where,
    win_rate,
    win_rate_as_asked,
    win_rate_of_any_difference,
)
from benchmarks.alignment.targets import Target, targets
from benchmarks.taste import (
    Person,
    Taste,
    colourfulness,
    light,
    repeated_agreement,
    smoothness,
    symmetry,
)
from sail.annotate import ShownPair
from sail.config import Scoring
from sail.loop import Rounds
from sail.records import LatentsRef, TrainingPair
from sail.reward import Bank, bank_of
from sail.rounds import Round, is_held_out
from sail.settings import LoopSettings


def unit(method, repeat, utility, taste="light"):
    rounds = [
        {
            "round": 0,
            "judge_accuracy": 0.8,
            "accepted": True,
            "self_pairs": None,
            "human_agreement": 0.9,
            "utility": 0.2,
            "diversity_ratio": 0.9,
            "saturation_ratio": 1.0,
            "winner_gain": 0.1,
            "loser_gain": -0.1,
        }
    ]
    return {
        "method": method,
        "taste": taste,
        "repeat": repeat,
        "precision": "bfloat16",
        "labels": METHODS[method].labels,
        "versions": {"torch": "2"},
        "pool": "aa",
        "utility": utility,
        "open": [1] * len(utility),
        "prompt_following": 0.9,
        "diversity_ratio": 1.0 if method == "base" else 0.9,
        "saturation_ratio": 1.0,
        "subject_found": [1] * len(utility),
        "current": None if method == "base" else 0,
        "rounds": [] if method == "base" else rounds,
        "unet_evaluations": 10,
        "seconds": 1.0,
    }


@pytest.fixture
def table():
    return Table(
        [
            *(unit("base", repeat, [0.0, 0.0]) for repeat in range(3)),
            *(unit("sail_6", repeat, [1.0 + 0.1 * repeat, 0.0]) for repeat in range(3)),
            *(unit("dpo_6", repeat, [0.0, -1.0]) for repeat in range(3)),
        ]
    )


def test_a_trial_is_a_method_with_a_setting_that_differs():
    trial = method_named("sail_6_paper draw_strength=0.25 loss.beta=60 reference=base")
    settings = settings_of(trial, STARTER, {})
    assert (settings.draw_strength, settings.loss.beta, settings.reference) == (0.25, 60, "base")
    assert settings.mixup.self_fraction == 0.25 and METHODS["sail_6_paper"].changes["draw_strength"] == 1.0
    with pytest.raises(KeyError):
        settings_of(method_named("sail_6 no_such_setting=1"), STARTER, {})


def test_a_row_that_cannot_be_run_is_refused_before_anything_is_drawn(tmp_path):
    for name, said in ("sail_6 refernce=base", "no setting refernce"), ("sail_6 reference=both", "reference"):
        with pytest.raises(SystemExit, match=said):
            command_line(["--methods", "base", name, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_units_stand_in_one_table_whichever_precision_they_were_computed_in(tmp_path):
    others = [{**unit("sft_6", 0, [1.0]), "precision": "float32"}]
    text = report.publish(Table([unit("base", 0, [0.0]), unit("sail_6", 0, [1.0]), *others]), tmp_path, "")
    assert "Computed in bfloat16; float32 in units of sft_6." in text


def test_a_trial_is_kept_apart_from_the_table(tmp_path, monkeypatch):
    for folder in ("TRIALS", "RESULTS"):
        monkeypatch.setattr(f"benchmarks.alignment.__main__.{folder}", tmp_path / folder)
    with pytest.raises(SystemExit, match="TRIALS"):
        command_line(["--report", "--methods", "base", "sail_6 draw_strength=0"])
    assert not (tmp_path / "RESULTS").exists()


def test_what_is_not_of_the_table_never_writes_there(tmp_path, monkeypatch):
    for folder in ("TRIALS", "RESULTS"):
        monkeypatch.setattr(f"benchmarks.alignment.__main__.{folder}", tmp_path / folder)
    for words in (["--tastes", "light"], ["--first", "0"]):
        with pytest.raises(SystemExit, match="TRIALS"):
            command_line(["--report", *words])
    elsewhere = tmp_path / "own" / "units.jsonl"
    with pytest.raises(SystemExit, match=r"own.units\.jsonl"):
        command_line(["--report", "--units", str(elsewhere)])
    assert not (tmp_path / "RESULTS").exists()


def test_a_quick_table_of_a_named_folder_removes_nothing_there(tmp_path):
    units = tmp_path / "alignment_units.jsonl"
    units.write_text('{"inputs": "of another table"}\n')
    with pytest.raises(SystemExit, match="cannot be run"):
        command_line(["--quick", "--out", str(tmp_path), "--methods", "sail_6 reference=both"])
    assert units.read_text() == '{"inputs": "of another table"}\n'


def test_a_unit_that_was_measured_twice_is_in_no_table():
    with pytest.raises(ValueError, match="sail_6, light, repeat 0 was measured twice"):
        Table([unit("sail_6", 0, [1.0]), unit("sail_6", 0, [2.0])])


def test_every_setting_that_a_method_changes_is_there():
    for method in METHODS.values():
        assert isinstance(settings_of(method, STARTER, {}), LoopSettings)
    with pytest.raises(KeyError, match=r"no setting loss\.gamma"):
        changed(LoopSettings(), {"loss.gamma": 1})


def test_tastes_for_tuning_are_not_in_the_table():
    assert len(TABLE) >= 6 and not set(TABLE) & set(TUNING) and set(TABLE) | set(TUNING) == set(TASTES)


def test_gain_is_a_paired_difference_with_an_interval_over_repeats(table):
    found = table.paired("sail_6", "base", gain)
    # Repeats gain .5, .55 and .6: mean .55, standard error .05 / sqrt(3), t with two degrees of freedom.
    assert found["mean"] == pytest.approx(0.55)
    assert found["high"] - found["mean"] == pytest.approx(4.3027 * 0.05 / 3**0.5, rel=1e-4)


def test_two_repeats_have_no_interval_yet():
    assert interval([0.4, 0.6]) == {"mean": 0.5, "low": None, "high": None}
    assert interval([0.4, 0.5, 0.6])["low"] == pytest.approx(0.5 - 4.3027 * 0.1 / 3**0.5, rel=1e-4)


def test_any_difference_is_a_win_where_it_is_asked_for():
    own, other = unit("sail_6", 0, [1.0, 1.0, 1.0]), unit("dpo_6", 0, [0.95, 1.0, 1.2])
    assert (win_rate(own, other), win_rate_of_any_difference(own, other)) == (pytest.approx(1 / 3), 0.5)


def test_images_that_are_liked_alike_are_half_a_win(table):
    assert table.paired("sail_6", "base", win_rate)["mean"] == pytest.approx(0.75)
    assert table.paired("sail_6", "dpo_6", win_rate)["mean"] == pytest.approx(1.0)


def test_an_image_without_the_subject_that_was_asked_for_loses_to_one_with_it():
    liked, asked = unit("sail_6_paper", 0, [5.0, 5.0, 5.0, 5.0]), unit("sail_6", 0, [1.0, 1.0, 9.0, 1.0])
    liked["subject_found"], asked["subject_found"] = [0, 0, 1, 1], [1, 0, 1, 1]
    assert win_rate(asked, liked) == 0.25
    # Won for its subject, drawn since neither has one, won and lost by utility.
    assert win_rate_as_asked(asked, liked) == 0.625


def test_what_the_prompt_names_is_told_apart_from_what_it_leaves_open(tmp_path):
    prompts = ["a 3d strawberry", "a penguin on an orange background", "a big 3d elephant"]
    assert pool.leaves_open("style", prompts) == [False, True, False]
    assert pool.leaves_open("style and background", prompts) == [False] * 3
    assert pool.leaves_open("symmetry", prompts) == [True] * 3
    own, base = unit("sail_6", 0, [1.0, 4.0, 3.0]), unit("base", 0, [0.0, 0.0, 0.0])
    for one in (own, base):
        one["open"] = [1, 0, 1]
    assert where(True, gain)(own, base) == 2.0 and where(False, gain)(own, base) == 4.0
    assert "| light | 2.00 / 4.00 | 4.00 |" in report.publish(Table([own, base]), tmp_path, "")


def test_two_methods_are_compared_only_where_both_were_measured():
    table = Table([unit("sail_6", 0, [1.0]), unit("sail_6", 1, [5.0]), unit("dpo_6", 1, [2.0])])
    assert table.paired("sail_6", "dpo_6", gain) == {"mean": 3.0, "low": None, "high": None}


def test_a_row_stands_beside_the_gain_of_sail_on_its_own_tastes_and_repeats(tmp_path):
    units = [unit(name, repeat, [value], taste)
             for repeat, taste, more in ((1, "light", 1.0), (2, "light", 3.0), (1, "size", 5.0))
             for name, value in (("base", 0.0), ("sail_6", more))]  # fmt: skip
    text = report.publish(Table([*units, unit("sail_192_labels", 2, [2.0], "light")]), tmp_path, "")
    assert "| sail_192_labels | 192 | 1 x 1 | 2.00 | 3.00 |" in text


def test_tastes_of_one_repeat_are_one_observation():
    table = Table([unit("sail_6", 0, [1.0], "light"), unit("sail_6", 0, [3.0], "smoothness")])
    assert table.over_repeats("sail_6", lambda one: one["utility"][0])["mean"] == 2.0
    assert table.over_repeats("sail_6", lambda one: one["utility"][0])["low"] is None


def test_the_published_file_names_every_method_and_comparison(table, tmp_path):
    report.publish(table, tmp_path, "python -m benchmarks.alignment")
    found = json.loads((tmp_path / "alignment.json").read_text())
    parts = {"command", "versions", "tastes", "methods", "against", "targets", "precisions"}
    assert set(found) == parts | {"pools_that_differ"} and found["versions"] == {"torch": "2"}
    assert set(found["methods"]) == {"base", "sail_6", "dpo_6"} and set(found["against"]) == {
        "sail_6 : dpo_6"
    }
    assert "| sail_6 | 96 | 1 x 3 | 0.55 (" in (tmp_path / "alignment.md").read_text()


def test_a_target_is_reached_by_its_mean_and_the_low_end_that_it_asks_for():
    assert Target("", 0.5, {"mean": 0.6, "low": 0.4, "high": 0.8}).reached
    assert Target("", 0.5, {"mean": 0.6, "low": 0.47, "high": 0.7}, low=0.48).reached is False
    assert Target("", 0.5, {"mean": 0.49, "low": 0.48, "high": 0.5}, low=0.48).reached is False
    # Once or twice is no measurement, whatever came of it.
    assert Target("", 0.5, {"mean": 0.6, "low": None, "high": None}).reached is None
    assert Target("", 0.5, {"mean": None, "low": None, "high": None}).reached is None


def test_a_target_on_a_few_of_the_tastes_is_not_measured():
    few = {"tastes": 2, "all_tastes": 6}
    assert Target("", 0.5, {"mean": 0.6, "low": 0.55, "high": 0.65}, **few).reached is None
    units = [unit("sail_6_paper", 0, [0.0], taste) for taste in ("light", "size")]
    found = targets(Table([*units, unit("sail_6_half_labels", 0, [1.0], "light")]))
    (half,) = [one for one in found if "half_labels" in one.what]
    assert (half.found["mean"], half.tastes, half.all_tastes, half.reached) == (1.0, 1, 2, None)


def test_the_most_there_is_to_win_leaves_what_prompts_name_as_it_is(tmp_path):
    own, other = unit("sail_6", 0, [1.0, 0.0]), unit("dpo_6", 0, [2.0, 0.0])
    for one in (own, other):
        one["open"] = [1, 0]
    text = report.publish(Table([own, other]), tmp_path, "")
    assert "| 25.0 % of 50.0 % (50.0 %) |" in text, "the first is at best a draw, the second one is"


def test_targets_are_told_with_what_was_found_and_with_the_most_there_is_to_win(table, tmp_path):
    text = report.publish(table, tmp_path, "python -m benchmarks.alignment")
    assert "| wins against dpo_6 | 58 % | 100.0 % (100.0 to 100.0) | 1 x 3 | yes |" in text
    assert "| wins against dpo_100 | 50 %, low end 48 % | - | 0 x 0 | not measured |" in text
    # Two of its images are at best 1.2, where dpo_6 has 0 and -1.
    assert "| diversity beside base's | 85 % | 90.0 % (90.0 to 90.0) | 1 x 3 | yes |" in text
    alone = "| light | -0.50 (-0.50 to -0.50) | 0.55 (0.43 to 0.67) |"
    assert f"{alone} 100.0 % (100.0 to 100.0) of 100.0 % (0.0 %) |" in text


def test_a_repeat_with_tastes_missing_is_not_yet_an_observation():
    units = [unit("sail_6", repeat, [1.0], taste) for repeat in (0, 1) for taste in ("light", "size")]
    table = Table([*units, unit("sail_6", 2, [100.0], "light")])
    assert table.over_repeats("sail_6", lambda one: one["utility"][0])["mean"] == 1
    # Nor are two repeats with a taste each, which are not the same.
    apart = Table([unit("sail_6", 1, [1.0], "light"), unit("sail_6", 2, [5.0], "size")])
    assert apart.over_repeats("sail_6", lambda one: one["utility"][0])["mean"] is None


def judging(repeat, taste, right, clear):
    """A unit whose judge chose among its own images; the pairs it learned from were all right."""
    own = unit("sail_6", repeat, [1.0], taste)
    found = {"best_worst": {"right": right, "clear": clear}, "learned_from": {"right": 1, "clear": 1}}
    own["rounds"] = [{**own["rounds"][0], "self_pairs": found}]
    return own


def test_a_judge_without_a_clear_pair_is_left_out_of_the_mean_and_its_repeat_is_not():
    units = [
        judging(0, "light", 3, 4),
        judging(0, "size", 0, 0),
        judging(1, "light", 1, 4),
        judging(1, "size", 9, 12),
    ]
    (found,) = [one for one in targets(Table(units)) if "its own images" in one.what]
    assert found.found["mean"] == pytest.approx((0.75 + 0.5) / 2) and (found.tastes, found.repeats) == (2, 2)
    # A row of the table counts pairs, and tells those that were learned from apart.
    row = Table(units).summary("sail_6")
    assert (row["own_accuracy"], row["learned_from_accuracy"]) == (13 / 20, 1.0)


def test_a_row_is_of_the_repeats_that_have_all_tastes():
    units = [unit("sail_6", 1, [1.0], taste) for taste in ("light", "size")]
    late = {**unit("sail_6", 2, [1.0], "light"), "prompt_following": 0.1}
    row = Table([*units, late]).summary("sail_6")
    assert (row["tastes"], row["repeats"], row["prompt_following"]) == (2, 1, 0.9)


def test_answers_that_differ_between_methods_of_a_repeat_are_told():
    other = {**unit("dpo_6", 1, [1.0], "size"), "pool": "bb"}
    table = Table([unit("sail_6", 1, [1.0], "size"), unit("sail_6", 1, [1.0], "light"), other])
    assert table.pools_that_differ == ["size, repeat 1"]


def test_methods_are_put_beside_each_other_on_what_all_of_them_have():
    units = [unit("sail_6", 0, [1.0], taste) for taste in ("light", "size")]
    beside = Table([*units, unit("sft_6", 0, [0.5], "size")]).beside(["sail_6", "sft_6"])
    assert [(one["method"], one["taste"]) for name in beside.methods for one in beside.of(name)] == [
        ("sail_6", "size"),
        ("sft_6", "size"),
    ]


def test_figures_are_drawn_of_whatever_was_measured(table, tmp_path):
    draw_figures(table, tmp_path)
    draw_figures(Table([unit("sail_6", 0, [1.0])]), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"labels.svg", "rounds.svg", "gains.svg"}


def test_a_round_that_half_of_the_units_had_refused_is_marked():
    units = [unit("sail_6", repeat, [1.0]) for repeat in range(2)]
    first = units[0]["rounds"][0]
    for one, accepted in zip(units, ((True, True, False), (True, False)), strict=True):
        one["rounds"] = [{**first, "accepted": said} for said in accepted]
    assert figures.mostly_refused(units) == [1, 2]


def test_workers_leave_when_whoever_asked_them_is_killed():
    asking = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from benchmarks.alignment.working import leave_with_parent
with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=leave_with_parent) as workers:
    print(workers.submit(os.getpid).result(), flush=True)
    workers.submit(time.sleep, 600).result()
"""
    with subprocess.Popen([sys.executable, "-c", asking], stdout=subprocess.PIPE, text=True) as asked:
        worker = psutil.Process(int(asked.stdout.readline()))
        asked.kill()
    worker.wait(timeout=30)


def test_a_person_who_is_asked_again_agrees_as_often_as_was_asked_for():
    differences = np.random.default_rng(0).normal(size=4000)
    clear = differences[np.abs(differences) >= 0.3]
    temperature = temperature_for(clear)
    assert repeated_agreement(clear, temperature) == pytest.approx(0.85, abs=1e-3)
    first, second = (Person(seed, temperature=temperature, tie_below=0.3) for seed in (1, 2))
    same = [first.choose(value, 0.0) == second.choose(value, 0.0) for value in clear]
    assert np.mean(same) == pytest.approx(0.85, abs=0.02)


@pytest.fixture
def pool_of(monkeypatch):
    """A pool of pairs whose images somebody likes as much as is said, whatever their taste."""

    def named_by_file(taste, files, reader):
        return np.array([float(file.name) for file in files])

    def pool_of(utilities_P2):
        sides = [[Path(str(value)) for value in pair] for pair in utilities_P2]
        latents = [LatentsRef(file="latents", row=row) for row in range(2)]
        pairs = [ShownPair(number, "a fox", *own, *latents) for number, own in enumerate(sides)]
        return pool.Pool("light", pairs, to_label=len(pairs))

    monkeypatch.setattr(pool, "utilities", named_by_file)
    return pool_of


def test_what_is_said_of_a_pair_hangs_on_no_other_pair(pool_of):
    utilities_P2 = np.random.default_rng(0).normal(size=(200, 2)).round(6)
    # What another machine makes of it: the first pair falls below what is a tie.
    utilities_P2[0], other_P2 = (0.0, 0.4), utilities_P2.copy()
    other_P2[0] = (0.0, 0.2)
    here, there = pool_of(utilities_P2), pool_of(other_P2)
    (_, said), (_, said_there) = (one.labels(METHODS["sail_6"], 1) for one in (here, there))
    assert {pair for pair in said if said[pair] != said_there[pair]} == {"00000"}
    assert here.told(1) == pool_of(utilities_P2).told(1) != there.told(1)
    # Another repeat asks a person with another hand.
    assert said != here.labels(METHODS["sail_6"], 2)[1]


def test_so_many_labels_are_wrong_as_the_row_says(pool_of):
    people = pool_of(np.random.default_rng(0).normal(size=(96, 2)).round(6))
    others = pool_of(np.random.default_rng(1).normal(size=(96, 2)).round(6))
    _, said = people.labels(METHODS["sail_6"], 1)
    with_a_winner = {pair for pair in said if said[pair] != "tie"}
    assert 0 < len(with_a_winner) < len(said)

    def differs(method, told=said):
        _, now = people.labels(METHODS[method], 1, beside=others if METHODS[method].second_taste else None)
        return {pair for pair in told if now[pair] != told[pair]}

    few, more, most = (differs(f"sail_6_flipped_{share}") for share in (10, 20, 30))
    assert few < more < most <= with_a_winner
    shares = [round(share * len(with_a_winner)) for share in (0.1, 0.2, 0.3)]
    assert [len(few), len(more), len(most)] == shares
    assert differs("sail_6_flipped_20_smoothed") == more

    _, leaning = people.labels(METHODS["sail_6_left_bias"], 1)
    # Three in ten say left; some of them would have, and of the others all that differ do now.
    turned = differs("sail_6_left_bias")
    assert 0 < len(turned) <= round(0.3 * 96) and {leaning[pair] for pair in turned} == {"left"}
    assert {said[pair] for pair in turned} == {"right", "tie"}

    # Half of the answers are the other's, among those that are held out as among the rest.
    _, of_others = others.labels(METHODS["sail_6"], 1)
    _, of_both = people.labels(METHODS["sail_6_two_annotators"], 1, beside=others)
    held_out = {pair for number, pair in enumerate(said) if is_held_out(number, LoopSettings())}
    for pairs in (held_out, set(said) - held_out):
        telling = [pair for pair in pairs if said[pair] != of_others[pair]]
        own = sum(of_both[pair] == said[pair] for pair in telling)
        assert 0.3 < own / len(telling) < 0.7
    assert all(of_both[pair] in (said[pair], of_others[pair]) for pair in said)


def test_a_person_sees_no_difference_between_images_that_are_nearly_alike():
    assert Person(0, tie_below=0.2).choose(0.5, 0.65) == "tie"


def test_who_is_unsure_of_ties_says_them_more_the_more_alike_two_images_are():
    def share_of_ties(gap):
        person = Person(0, tie_below=0.2, tie_spread=0.1)
        return np.mean([person.choose(0.5, 0.5 + gap) == "tie" for _ in range(4000)])

    for gap, expected in ((0.0, 0.881), (0.2, 0.5), (0.4, 0.119)):
        assert share_of_ties(gap) == pytest.approx(expected, abs=0.03)


def test_who_is_unsure_of_ties_prefers_what_they_would_prefer_otherwise(pool_of):
    people = pool_of(np.random.default_rng(0).normal(size=(400, 2)).round(6))
    (_, sure), (_, unsure) = (people.labels(METHODS[name], 1) for name in ("sail_6", "sail_6_unsure_ties"))
    both = [pair for pair in sure if "tie" not in (sure[pair], unsure[pair])]
    assert both and all(sure[pair] == unsure[pair] for pair in both)
    assert any(sure[pair] == "tie" != unsure[pair] for pair in sure)
    assert any(unsure[pair] == "tie" != sure[pair] for pair in sure)


def test_statistics_rise_with_what_they_are_named_for():
    grey = np.full((1, 8, 8, 3), 0.5, np.float32)
    red = grey.copy()
    red[..., 0] = 1
    lopsided = grey.copy()
    lopsided[:, :, :4] = 0
    assert colourfulness(red) > colourfulness(grey) == 0
    assert light(red) > light(grey) > light(lopsided)
    assert symmetry(grey) == 0 > symmetry(lopsided)
    assert smoothness(grey) == 0 > smoothness(lopsided)


def test_a_taste_gives_a_point_for_each_attribute_that_is_as_liked():
    taste = Taste({"style": ("flat", "3d"), "background": ("red",)})
    assert taste.likes({"style": "3d", "background": "blue"}) == {"style": True, "background": False}

    class Sure:
        classes = {"style": ["3d", "cartoon", "flat"], "background": ["blue", "red"]}  # noqa: RUF012

        def read(self, images):
            import torch

            return {
                "style": torch.tensor([[0.0, 0.2, 0.8]] * len(images)),
                "background": torch.tensor([[0.5, 0.5]] * len(images)),
            }

    assert taste.utilities([Image.new("RGB", (4, 4))], Sure()).tolist() == pytest.approx([1.3])


def test_so_many_draws_are_enough_from_which_on_more_are_never_worse() -> None:
    right = {2: 0.7, 3: 0.9, 4: 0.7, 5: 0.8, 6: 0.8, 8: 0.85, 10: 0.9, 16: 0.9, 32: 0.9}
    lines = [
        {"draws": "shared", "average": "mean", "K": count, "right": right[count]} for count in judge.COUNTS
    ]
    assert judge.draws_for(lines, "mean", as_good_as=0.8) == 5
    assert judge.draws_for(lines, "mean", as_good_as=0.95) is None


def test_twins_differ_in_the_sign_of_their_noise_alone_and_come_together() -> None:
    plain = bank_of("a cat", 3, (4, 8, 8), 1000, Scoring(draws=5))
    bank = judge.antithetic(plain)
    first, second = (Bank(bank.timesteps_NK[:, i::2], bank.noise_NKCHW[:, i::2]) for i in (0, 1))
    for one, sign in ((first, 1), (second, -1)):
        assert torch.equal(one.timesteps_NK, plain.timesteps_NK)
        assert torch.equal(one.noise_NKCHW, sign * plain.noise_NKCHW)
    of_each = np.arange(32.0)[None, None]
    chosen = judge.some_of(of_each, 8, 3, how="twins").ravel()
    assert chosen[:4].tolist() == (chosen[4:] - 1).tolist() and (chosen[:4] % 2 == 0).all()
    assert (chosen[:4] // 8).tolist() == [0, 1, 2, 3]


def test_draws_weighed_alike_count_alike_whatever_their_size() -> None:
    # The second draw says the opposite of the first at a hundredth of its size.
    gains_GNK = np.array([[[1.0, -0.01], [2.0, -0.03], [3.0, -0.02]]])
    assert judge.put_together(gains_GNK, "mean").argmax() == 2
    assert judge.judged(judge.put_together(gains_GNK, "mean"), np.array([[0.0, 1.0, 2.0]])) == (1.0, 1.0)
    normalised = judge.put_together(gains_GNK, "normalised")[0]
    assert np.argmax(normalised) == 2 and normalised[0] > normalised[1]


def test_a_race_drops_who_is_neither_best_nor_worst_and_keeps_who_may_be() -> None:
    # Four candidates, the third close to the best; noise far below the other distances.
    noise = 0.01 * np.random.default_rng(0).standard_normal((1, 4, 10))
    gains_GNK = np.array([0.0, 1.0, 1.999, 2.0])[None, :, None] + noise
    rewards_GN, share = judge.raced(gains_GNK, first=3, errors=2.0)
    assert np.isnan(rewards_GN[0]).tolist() == [False, True, False, False]
    assert share == (3 * 4 + 7 * 3) / 40
    assert np.allclose(rewards_GN[0, [0, 2, 3]], gains_GNK[0, [0, 2, 3]].mean(1))
    everybody, whole = judge.raced(gains_GNK, first=10, errors=0.0)
    assert whole == 1 and np.allclose(everybody, gains_GNK.mean(2))


def test_a_unit_holds_while_the_settings_that_it_was_measured_with_do() -> None:
    size = study.Size()
    settings = study.settings_at(size, METHODS["dpo_6"], 0).model_dump(mode="json")
    asked = METHODS["dpo_6"].asked()
    unit = {
        "inputs": study.inputs(size),
        "method": "dpo_6",
        "repeat": 0,
        "settings": settings,
        "asked": asked,
    }
    assert study.still_holds(unit, size)
    # A setting that was not there yet had its default, whatever the starter has set it to since.
    smoothing, ties = ({key: value for key, value in settings["loss"].items() if key != name}
                       for name in ("label_smoothing", "hold_ties"))  # fmt: skip
    assert study.still_holds({**unit, "settings": {**settings, "loss": smoothing}}, size)
    assert not study.still_holds({**unit, "settings": {**settings, "loss": ties}}, size)
    # One that is gone; another value of one that was; another size, repeat or method.
    assert not study.still_holds({**unit, "settings": {**settings, "gone": 1}}, size)
    assert not study.still_holds({**unit, "asked": {**asked, "labels": 48}}, size)
    other_beta = {**settings["loss"], "beta": 7.0}
    assert not study.still_holds({**unit, "settings": {**settings, "loss": other_beta}}, size)
    # What only self pairs hang on says nothing to a method without any.
    assert study.still_holds({**unit, "settings": {**settings, "min_margin": 0.9}}, size)
    sail_6 = {**unit, "method": "sail_6", "asked": METHODS["sail_6"].asked()}
    assert study.still_holds(sail_6, size)
    assert not study.still_holds({**sail_6, "settings": {**settings, "min_margin": 0.9}}, size)
    held_out = {**settings, "held_out_every": 3}
    assert study.still_holds({**unit, "settings": held_out}, size), "it learns from all"
    assert not study.still_holds({**sail_6, "settings": held_out}, size)
    base = {**unit, "method": "base", "asked": METHODS["base"].asked()}
    assert study.still_holds({**base, "settings": {**settings, "loss": other_beta}}, size)
    other_noise = {**base, "settings": {**settings, "noise_seed": 1}}
    assert not study.still_holds(other_noise, size), "what base draws hangs on it"
    other_pool = {**base, "settings": {**settings, "monitor_prompts": 8}}
    assert not study.still_holds(other_pool, size), "these prompts are not drawn pairs for"
    assert not study.still_holds(unit, study.Size(steps=59))
    assert study.still_holds(unit, study.Size(precision="bfloat16")), "which draws the same pictures"
    assert not study.still_holds({**unit, "repeat": 1}, size)
    assert not study.still_holds({**unit, "method": "gone"}, size)


def test_what_a_method_with_other_labels_began_is_not_gone_on_with() -> None:
    settings = study.settings_at(study.Size(), METHODS["sail_6"], 1)
    names = {study.known_by(settings, METHODS[name]) for name in ("sail_6", "sail_6_half_labels", "dpo_6")}
    assert len(names) == 3


def test_a_person_who_checks_turns_what_is_wrong_and_drops_what_looks_alike(tmp_path, monkeypatch) -> None:
    file = tmp_path / "00000.safetensors"
    for row, light_ in enumerate((250, 60, 50, 200, 100, 101)):
        Image.new("L", (4, 4), light_).save(tmp_path / f"00000-{row}.png")

    def pair(name: str, winner: int, loser: int) -> TrainingPair:
        refs = (LatentsRef(file=str(file), row=row) for row in (winner, loser))
        return TrainingPair(id=name, prompt="a fox", winner=next(refs), loser=next(refs), source="self")

    judged = [pair("sure", 2, 0), pair("right", 0, 1), pair("wrong", 2, 3), pair("alike", 4, 5)]
    monkeypatch.setattr(Rounds, "self_annotated", lambda rounds, policy: list(judged))

    def lighter(name: str, left: Path, right: Path) -> str:
        less = [Image.open(side).getpixel((0, 0)) for side in (left, right)]
        return "tie" if abs(less[0] - less[1]) < 5 else "left" if less[0] > less[1] else "right"

    out = (tmp_path, STARTER, LoopSettings(), [f"prompt {number}" for number in range(40)])
    rounds = OtherRounds(*out, count=3, choose=lighter)
    first = rounds.self_annotated(None)
    # The clearest is not looked at, however wrong; what was turned round is the person's, now and later.
    assert [(one.id, one.source) for one in first] == [
        ("sure", "self"), ("right", "self"), ("human-wrong", "human")
    ]  # fmt: skip
    assert (first[2].winner.row, first[2].loser.row) == (3, 2)
    assert rounds.said == {"approved": 1, "turned": 1, "dropped": 1}
    judged[:] = judged[1:2]
    assert [one.id for one in rounds.self_annotated(None)] == ["right", "human-wrong"]
    assert OtherRounds(*out, count=0, choose=lighter).self_annotated(None) == judged


def test_the_share_of_self_pairs_is_that_of_the_round(tmp_path, monkeypatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(
        Rounds, "train", lambda rounds, pairs, parent: shares.append(rounds._settings.mixup.self_fraction)
    )
    settings = LoopSettings()
    rounds = OtherRounds(tmp_path, STARTER, settings, [f"prompt {n}" for n in range(40)], shares=(0.5, 0.9))
    rounds.train([], parent=None)
    for number in range(2):
        rounds.done.append(Round.model_construct(round=number))
        rounds.train([], parent=rounds.done[-1])
    assert shares == [settings.mixup.self_fraction, 0.5, 0.9]


def test_pairs_are_asked_about_in_the_order_of_the_row() -> None:
    latents = [LatentsRef(file="latents", row=row) for row in range(2)]
    prompts = [f"a {'fox' if number < 60 else f'thing{number}'}" for number in range(100)]
    pairs = [ShownPair(number, prompt, Path(), Path(), *latents) for number, prompt in enumerate(prompts)]
    judged: list[tuple[int, int]] = []

    def judge(answered: Sequence[int], others: Sequence[int]) -> dict[int, float]:
        judged.append((len(answered), len(others)))
        return {place: float(place - 70) for place in others}

    def asked(order: Order) -> list[int]:
        return asked_about(pairs, order, 40, judge=judge, seed="a")

    assert asked("random") == list(range(40)) and not judged
    uncertain = asked("uncertain")
    assert judged == [(20, 80)] and uncertain[:20] == list(range(20)) and len(set(uncertain)) == 40
    # Four in five are those that it is least certain of, the others came by lot.
    near = [place for place in uncertain[20:] if abs(place - 70) <= 10]
    assert 14 <= len(near) < 20
    # Of sixty prompts that are alike one is asked about before all others are, but for what comes by lot.
    diverse = asked("diverse")
    assert len(set(diverse)) == 40 and sum(place < 60 for place in diverse) < 14
    assert asked("diverse") == diverse
