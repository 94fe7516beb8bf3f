"""The table in words: Markdown and alignment.json. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.alignment.methods import CORE
from benchmarks.alignment.table import (
    Interval,
    Table,
    Unit,
    equally_liked,
    gain,
    where,
    win_rate,
    win_rate_as_asked,
    win_rate_of_any_difference,
)
from benchmarks.alignment.targets import Target, targets

COMPARED = (
    ("sail_6", "dpo_100"),
    ("sail_6", "dpo_100_plain"),
    ("sail_6", "dpo_100_plain_slow"),
    ("dpo_100_plain", "dpo_100"),
    ("sail_6", "dpo_100_in_rounds"),
    ("sail_6", "dpo_6"),
    ("sail_6", "sail_6_paper"),
    ("sail_6_half_labels", "sail_6_paper"),
    ("sail_6_half_labels", "dpo_6_half_labels"),
    ("sail_24_labels", "dpo_24_labels"),
    ("sail_6_eight_rounds", "dpo_6_eight_rounds"),
    ("sail_6_eight_rounds", "dpo_100"),
    ("sail_6", "sail_6_no_mixup"),
    ("sail_6", "sail_6_random_pairs"),
    ("sail_6", "sail_6_independent_draws"),
    ("sail_6_new_draws", "sail_6_independent_draws"),
    ("sail_6", "sail_6_new_draws"),
    ("sail_6", "sail_6_ties_left_out"),
    ("sail_6", "sail_6_any_margin"),
    ("sail_6_varied", "dpo_6_varied"),
    ("sail_6_varied", "dpo_100"),
    ("sail_6_flipped_20_smoothed", "sail_6_flipped_20"),
    ("sail_6", "sft_6"),
    ("sail_6_checked", "sail_6"),
    ("sail_6", "sail_6_dpo_loss"),
    ("dpo_6", "dpo_6_dpo_loss"),
    ("sail_6_dpo_loss", "dpo_6_dpo_loss"),
    ("sail_6_dpo_loss", "dpo_100"),
    ("sail_6_dpo_loss", "sail_6_paper"),
    ("sail_192_labels", "sail_6"),
    ("sail_6_half_labels", "sail_6"),
    ("sail_24_labels", "sail_6"),
    ("sail_6_flipped_10", "sail_6"),
    ("sail_6_flipped_20", "sail_6"),
    ("sail_6_flipped_20_smoothed", "sail_6"),
    ("sail_6_flipped_30", "sail_6"),
    ("sail_6_left_bias", "sail_6"),
    ("sail_6_two_annotators", "sail_6"),
    ("sail_6_unsure_ties", "sail_6"),
    ("sail_6_unsure_ties", "dpo_6_unsure_ties"),
    ("sail_6_unsure_ties", "dpo_100"),
    ("sail_6_eight_rounds", "sail_6"),
    ("sail_6_eight_rounds_no_mixup", "sail_6_eight_rounds"),
)


TITLE = "Rows and columns: [docs/alignment.md](../../docs/alignment.md)."


def publish(table: Table, out: Path, command: str) -> str:
    """Write alignment.json and alignment.md; return the second."""
    out.mkdir(parents=True, exist_ok=True)
    methods = {
        method: {**table.summary(method), **_of_sail_6(table, method)}
        for method in table.methods
        if table.complete(method)
    }
    against = {
        f"{one} : {other}": {
            "gain": table.paired(one, other, gain),
            "win_rate": table.paired(one, other, win_rate),
            "equally_liked": table.paired(one, other, equally_liked),
            "win_rate_of_any_difference": table.paired(one, other, win_rate_of_any_difference),
            "win_rate_as_asked": table.paired(one, other, win_rate_as_asked),
            "win_rate_where_open": table.paired(one, other, where(True, win_rate_as_asked)),
        }
        for one, other in COMPARED
        if one in methods and other in methods
    }
    found = {
        "command": command,
        "versions": table.versions,
        "precisions": table.precisions,
        "tastes": table.tastes,
        "pools_that_differ": table.pools_that_differ,
        "methods": methods,
        "against": against,
        "targets": [{**asdict(target), "reached": target.reached} for target in targets(table)],
    }
    (out / "alignment.json").write_text(json.dumps(found, indent=1) + "\n")
    text = markdown(methods, against)
    text += "\n" + _targets_as_words(targets(table)) + "\n" + _by_taste(table) + "\n" + _where_open(table)
    most, *others = table.precisions
    if others:
        in_others = [f"{other} in units of {', '.join(table.precisions[other])}" for other in others]
        text += f"\nComputed in {most}; {'; '.join(in_others)}.\n"
    if table.pools_that_differ:
        text += f"\nPools drawn again, with other labels: {'; '.join(table.pools_that_differ)}.\n"
    (out / "alignment.md").write_text(f"{TITLE}\n\n{text}")
    return text


def _of_sail_6(table: Table, method: str) -> dict[str, Any]:
    """Its figures on the tastes and repeats that a method was run on, to read the method's beside."""
    there = table.beside(["base", "sail_6", method])
    own = there.summary("sail_6") if there.complete("sail_6") else {}
    return {
        "gain_of_sail_6": there.paired("sail_6", "base", gain),
        "subject_of_sail_6": own.get("subject_found"),
        "diversity_of_sail_6": own.get("diversity_ratio"),
    }


def markdown(methods: dict[str, Any], against: dict[str, Any]) -> str:
    """The rows, and the pairs of rows: what `publish` writes of each."""
    lines = [
        "| method | labels | repeats | gain over base, SD | sail_6 there | wins against base "
        "| wins where the subject comes first | prompt following | subject / sail_6 there | judge "
        "| its own pairs | diversity / sail_6 there | saturation | rounds kept | evaluations | seconds |",
        "|---" * 16 + "|",
    ]
    for name, one in methods.items():
        lines.append(
            f"| {name} | {one['labels']} | {one['tastes']} x {one['repeats']} | {_shown(one['gain'])} "
            f"| {_shown(one['gain_of_sail_6'])} | {_shown(one['win_rate'], share=True)} "
            f"| {_shown(one['win_rate_as_asked'], share=True)} | {_share(one['prompt_following'])} "
            f"| {_share(one['subject_found'])} / {_share(one['subject_of_sail_6'])} "
            f"| {_share(one['judge_accuracy'])} | {_share(one['own_accuracy'])} "
            f"| {_ratio(one['diversity_ratio'])} / {_ratio(one['diversity_of_sail_6'])} "
            f"| {_ratio(one['saturation_ratio'])} "
            f"| {_ratio(one['rounds_kept'])} | {one['unet_evaluations']:,.0f} | {one['seconds']:.0f} |"
        )
    if against:
        lines += [
            "",
            "| head to head | difference, SD | wins | equally liked | wins if any difference counts "
            "| wins where the subject comes first | the same where the prompt leaves it open |",
            "|---" * 7 + "|",
        ]
    lines += [
        f"| {pair} | {_shown(one['gain'])} | {_shown(one['win_rate'], share=True)} "
        f"| {_share(one['equally_liked']['mean'])} "
        f"| {_shown(one['win_rate_of_any_difference'], share=True)} "
        f"| {_shown(one['win_rate_as_asked'], share=True)} "
        f"| {_shown(one['win_rate_where_open'], share=True)} |"
        for pair, one in against.items()
    ]
    return "\n".join(lines) + "\n"


def _targets_as_words(found: list[Target]) -> str:
    words = {True: "yes", False: "no", None: "not measured"}
    lines = ["| sail_6, mean over tastes | at least | found | tastes x repeats | reached |", "|---" * 5 + "|"]
    for one in found:
        asked = f"{100 * one.least:g} %" + (f", low end {100 * one.low:g} %" if one.low is not None else "")
        lines.append(
            f"| {one.what} | {asked} | {_shown(one.found, share=True)} "
            f"| {one.tastes} x {one.repeats} "
            f"| {words[one.reached]}{' often enough' if one.reached is None and one.repeats else ''} |"
        )
    return "\n".join(lines) + "\n"


def _by_taste(table: Table) -> str:
    """Each taste alone: gains, what SAIL's defaults win, and the most that could be won."""
    others = [name for name in CORE if name not in ("base", "sail_6") and name in table.methods]
    gains = [f"{name}, SD" for name in (*others, "sail_6")]
    heads = ["taste", *gains, *(f"wins against {name} (equally liked)" for name in others)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for taste in table.tastes:
        own = table.on(taste)
        at_best = partial(_most, compare=win_rate, best=own.best())
        cells = [_shown(own.paired(name, "base", gain)) for name in (*others, "sail_6")]
        for name in others:
            won, most = own.paired("sail_6", name, win_rate), own.paired("sail_6", name, at_best)
            of = f" of {_share(most['mean'])}" if most["mean"] is not None else ""
            alike = _share(own.paired("sail_6", name, equally_liked)["mean"])
            cells.append(f"{_shown(won, share=True)}{of} ({alike})")
        lines.append(f"| {' | '.join([taste, *cells])} |")
    note = (
        '"of": what would be won if every image whose prompt leaves open what the taste is about were liked '
        "as much as the best of any method, and the others as they are."
    )
    return "\n".join(lines) + f"\n\n{note}\n"


def _where_open(table: Table) -> str:
    """Gains on prompts that leave open what the taste is about, and on those that name it."""
    others = [name for name in table.methods if name in CORE and name != "base"]
    lines = [f"| {' | '.join(['taste, SD', *others, 'the most'])} |", "|---" * (len(others) + 2) + "|"]
    for taste in table.tastes:
        own = table.on(taste)
        at_best = partial(_most, compare=gain, best=own.best())
        cells = []
        for name in others:
            sides = [own.paired(name, "base", where(is_open, gain))["mean"] for is_open in (True, False)]
            cells.append(" / ".join("-" if value is None else f"{value:.2f}" for value in sides))
        most = own.paired("base", "base", where(True, at_best))
        lines.append(f"| {' | '.join([taste, *cells, _shown(most)])} |")
    note = (
        "Gain where the prompt leaves open what the taste is about / where it names it, so that what is "
        'gained is against its words. "The most": where it is open, if every image were liked as much as the '
        "best of any method; of a statistic of the picture that is one odd image."
    )
    return "\n".join(lines) + f"\n\n{note}\n"


def _most(own: Unit, other: Unit, *, compare: Callable[[Unit, Unit], float], best: float) -> float:
    """What `compare` would find if every image were liked as much as the best where its prompt leaves open
    what the taste is about."""
    most = [best if is_open else value for is_open, value in zip(own["open"], own["utility"], strict=True)]
    return compare({**own, "utility": most}, other)


def _shown(found: Interval, *, share: bool = False) -> str:
    scale, unit = (100, " %") if share else (1, "")
    if found["mean"] is None:
        return "-"
    digits = 1 if share else 2
    mean = f"{scale * found['mean']:.{digits}f}{unit}"
    if found["low"] is None or found["high"] is None:
        return mean
    return f"{mean} ({scale * found['low']:.{digits}f} to {scale * found['high']:.{digits}f})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
