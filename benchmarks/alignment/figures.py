"""The table's figures as SVG. Knows summaries and units, no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from benchmarks.alignment.table import Table, Unit, win_rate

plt.switch_backend("Agg")
plt.rcParams.update({"svg.hashsalt": "alignment", "axes.spines.top": False, "axes.spines.right": False})

BY_LABELS = ("sail_24_labels", "sail_6_half_labels", "sail_6", "sail_192_labels")
WITHOUT_SELF_PAIRS = ("dpo_24_labels", "dpo_6_half_labels", "dpo_6")
BESIDE = ("dpo_100", "sft_6", "sail_6_paper")
BY_ROUNDS = (
    "sail_6",
    "sail_6_no_mixup",
    "sail_6_eight_rounds",
    "sail_6_eight_rounds_no_mixup",
    "dpo_6",
    "dpo_6_eight_rounds",
)
GAINS = ("sail_6", "sail_6_paper", "dpo_6")


def draw_figures(table: Table, out: Path) -> None:
    """Win rate over labels; figures over rounds; winner and loser gain.

    Each shows the methods that were measured, on the tastes and repeats that all of them have, which its
    title tells.
    """

    def measured(names: Sequence[str], *, tastes: int = 1) -> Table:
        """Without those on fewer tastes, which would leave the others only these."""
        few = min(tastes, len(table.tastes))
        wide = [name for name in names if len({unit["taste"] for unit in table.of(name)}) >= few]
        return table.beside(wide)

    _over_labels(measured(["base", *BY_LABELS, *WITHOUT_SELF_PAIRS, *BESIDE], tastes=2), out / "labels.svg")
    _over_rounds(measured(BY_ROUNDS), out / "rounds.svg")
    _gains(measured(GAINS), out / "gains.svg")


def _over_labels(table: Table, file: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    rates = {name: table.paired(name, "base", win_rate) for name in table.methods if name != "base"}
    at = {name: table.of(name)[0]["labels"] for name in rates}
    for names, colour in ((BY_LABELS, "C0"), (WITHOUT_SELF_PAIRS, "C1")):
        line = [name for name in names if name in rates]
        means = [rates[name]["mean"] for name in line]
        axes.plot([at[name] for name in line], means, "-", color=colour, alpha=0.5)
    for name, rate in rates.items():
        if rate["mean"] is None:
            continue
        colour = "C0" if name in BY_LABELS else "C1" if name in WITHOUT_SELF_PAIRS else "C2"
        if rate["low"] is not None:
            axes.plot([at[name]] * 2, [rate["low"], rate["high"]], color=colour)
        axes.plot(at[name], rate["mean"], "o", color=colour)
        axes.annotate(name, (at[name], rate["mean"]), (5, 5), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="labels", ylabel="wins against the base model", title=_told(table))
    _save(figure, file)


def _over_rounds(table: Table, file: Path) -> None:
    panels = {
        "gain over base, SD": "utility",
        "judge, unseen pairs": "judge_accuracy",
        "agreement with its labels": "human_agreement",
        "diversity against base, as the gate reads it": "diversity_ratio",
    }
    figure, places = plt.subplots(1, len(panels), figsize=(16, 4))
    figure.suptitle(_told(table))
    for axes, (title, key) in zip(places, panels.items(), strict=True):
        for name in table.methods:
            units = table.of(name)
            line = _mean_line(axes, [[one[key] for one in unit["rounds"]] for unit in units], label=name)
            if line is not None:
                at = mostly_refused(units)
                axes.plot(at, line.get_ydata()[at], "x", color="black", markersize=8)
        axes.set(xlabel="round (x: the gate refused it)", title=title)
    _legend(places[0])
    _save(figure, file)


def _gains(table: Table, file: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    for name in table.methods:
        for side, style in (("winner_gain", "-"), ("loser_gain", "--")):
            curves = [[one[side] for one in unit["rounds"]] for unit in table.of(name)]
            _mean_line(axes, curves, style=style, label=f"{name}, {side.split('_')[0]}")
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(xlabel="round", ylabel="gain at the end of the round", title=_told(table))
    _legend(axes)
    _save(figure, file)


def _told(table: Table) -> str:
    """What a figure is of."""
    repeats = len({unit["repeat"] for name in table.methods for unit in table.of(name)})
    tastes = ", ".join(table.tastes) if len(table.tastes) < 4 else f"{len(table.tastes)} tastes"
    return f"{tastes}; {'once' if repeats == 1 else f'{repeats} repeats'}"


def mostly_refused(units: Sequence[Unit]) -> list[int]:
    """Rounds that the gate refused in at least half of the units."""
    shut = [[not one["accepted"] for one in unit["rounds"]] for unit in units]
    by_round = [
        [rounds[at] for rounds in shut if at < len(rounds)] for at in range(max(map(len, shut), default=0))
    ]
    return [at for at, found in enumerate(by_round) if 2 * sum(found) >= len(found)]


def _mean_line(axes: Any, curves: Sequence[Sequence[float | None]], *, label: str, style: str = "-") -> Any:
    """The mean of curves; one that ends early keeps its last value, as a loop that stops keeps its model."""
    curves = [curve for curve in curves if curve]
    if not curves:
        return None
    length = max(map(len, curves))
    rows = [[_number(value) for value in [*curve, *[curve[-1]] * (length - len(curve))]] for curve in curves]
    if np.isnan(rows).all():
        return None
    return axes.plot(range(length), np.nanmean(rows, axis=0), style, marker=".", label=label)[0]


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:  # Of the base model alone there is nothing to draw.
        axes.legend(fontsize=7)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _save(figure: Any, file: Path) -> None:
    for axes in figure.axes:
        if axes.get_xlabel().startswith("round"):
            axes.xaxis.get_major_locator().set_params(integer=True)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
