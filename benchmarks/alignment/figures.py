"""The table's figures as SVG. Knows summaries and units, no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from benchmarks.alignment.report import Table

plt.switch_backend("Agg")
plt.rcParams.update({"svg.hashsalt": "alignment", "axes.spines.top": False, "axes.spines.right": False})

BY_LABELS = ("sail_24", "sail_6_half_labels", "sail_6", "sail_192")
BY_ROUNDS = ("sail_6", "sail_6_no_mixup", "sail_6_eight_rounds", "sail_6_eight_rounds_no_mixup", "dpo_6")


def draw_figures(table: Table, methods: dict[str, Any], out: Path) -> list[Path]:
    """Win rate over labels; figures over rounds; winner and loser gain. Leaves out what was not measured."""
    return [
        _over_labels(methods, out / "labels.svg"),
        _over_rounds(table, out / "rounds.svg"),
        _gains(table, out / "gains.svg"),
    ]


def _over_labels(methods: dict[str, Any], file: Path) -> Path:
    figure, axes = plt.subplots(figsize=(6, 4))
    ours = [methods[name] for name in BY_LABELS if name in methods]
    axes.plot(
        [one["labels"] for one in ours], [one["win_rate"]["mean"] for one in ours], "-", color="C0", alpha=0.5
    )
    for name in (*BY_LABELS, "dpo_6", "dpo_100", "sft_6", "sail_6_paper"):
        if name not in methods:
            continue
        one, colour = methods[name], "C0" if name in BY_LABELS else "C1"
        rate = one["win_rate"]
        if rate["low"] is not None:
            axes.plot([one["labels"]] * 2, [rate["low"], rate["high"]], color=colour)
        axes.plot(one["labels"], rate["mean"], "o", color=colour)
        axes.annotate(name, (one["labels"], rate["mean"]), (5, 5), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="labels", ylabel="wins against the base model")
    return _saved(figure, file)


def _over_rounds(table: Table, file: Path) -> Path:
    panels = (
        ("gain over base, SD", lambda unit: [one["utility"] for one in unit["rounds"]]),
        ("judge, unseen pairs", lambda unit: [one["judge_accuracy"] for one in unit["rounds"]]),
        ("diversity against base", lambda unit: [one["diversity_ratio"] for one in unit["rounds"]]),
    )
    figure, places = plt.subplots(1, len(panels), figsize=(12, 4))
    for axes, (title, figures_of) in zip(places, panels, strict=True):
        for name in BY_ROUNDS:
            _mean_line(axes, [figures_of(unit) for unit in table.of(name)], label=name)
        axes.set(xlabel="round", title=title)
    places[0].legend(fontsize=7)
    return _saved(figure, file)


def _gains(table: Table, file: Path) -> Path:
    figure, axes = plt.subplots(figsize=(6, 4))
    for name in ("sail_6", "sail_6_paper", "dpo_6"):
        for side, style in (("winner_gain", "-"), ("loser_gain", "--")):
            curves = [[one[side] for one in unit["rounds"]] for unit in table.of(name)]
            _mean_line(axes, curves, style=style, label=f"{name}, {side.split('_')[0]}")
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(xlabel="round", ylabel="gain at the end of the round")
    axes.legend(fontsize=7)
    return _saved(figure, file)


def _mean_line(axes: Any, curves: Sequence[Sequence[float | None]], *, label: str, style: str = "-") -> None:
    """The mean of curves of different length, as far as any goes."""
    if not curves:
        return
    length = max(map(len, curves))
    table = np.array([[*map(_number, curve), *[np.nan] * (length - len(curve))] for curve in curves])
    if length and not np.isnan(table).all():
        axes.plot(range(length), np.nanmean(table, axis=0), style, marker=".", label=label)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _saved(figure: Any, file: Path) -> Path:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    return file
