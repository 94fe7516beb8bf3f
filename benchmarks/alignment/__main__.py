"""The command line of the alignment benchmark: which units, how many at once, and where they go."""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

from benchmarks.alignment.working import leave_with_parent, prepare, work
from sail.files import read_lines
from sail.loop import drop_half_line
from sail.model_ref import Precision

RESULTS = Path("benchmarks/results")
WORK = Path("data/projects/alignment")
TRIALS = WORK / "trials"
"""Of rows that the table does not have."""

Asked = tuple[str, int, str]
"""Taste, repeat and method of a unit."""
TWO_TASTES = ("style and background", "colourfulness")
FIRST = 1
"""Repeat 0 was seen on tastes of the table while settings were chosen."""
QUICK = {
    "steps": 32,
    "pool_pairs": 96,
    "judged_pairs": 24,
    "held_out_prompts": 64,
    "prompts_per_round": 24,
}


def wanted(asked: argparse.Namespace) -> Iterator[Asked]:
    """All units in the order in which a stopped table is worth most."""
    from benchmarks.alignment.methods import CORE, METHODS, ON_ALL_TASTES, ONCE, method_named, settings_of
    from benchmarks.alignment.pool import TABLE, TASTES
    from benchmarks.alignment.study import STARTER

    methods = asked.methods or (("base", "dpo_6", "sail_6") if asked.quick else tuple(METHODS))
    tastes = asked.tastes or (TABLE[3:4] if asked.quick else TABLE)
    asked_for = [*(method.split()[0] for method in methods), *tastes]
    unknown = [name for name in asked_for if name not in METHODS and name not in TASTES]
    if unknown:
        raise SystemExit(
            f"There is no {unknown[0]!r}. Methods: {', '.join(METHODS)}. Tastes: {', '.join(TASTES)}."
        )
    for name in methods:
        try:
            settings_of(method_named(name), STARTER, {})
        except (KeyError, ValueError) as error:
            raise SystemExit(f"{name!r} cannot be run: {error.args[0] if error.args else error}") from None
    repeats = asked.repeats or (1 if asked.quick else 5)
    for repeat, taste in itertools.product(range(asked.first, asked.first + repeats), tastes):
        for method in methods:
            most = 5 if method in CORE else 1 if method in ONCE else 3
            few = repeat >= FIRST + most or (method not in ON_ALL_TASTES and taste not in TWO_TASTES)
            if asked.tastes or asked.quick or not few:
                yield taste, repeat, method


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="base, dpo_6 and sail_6, one taste, one repeat, in minutes"
    )
    parser.add_argument(
        "--methods",
        nargs="*",
        help=f'rows of the table; "sail_6 draw_strength=0" tries another setting. Trials, tuning tastes and '
        f"repeats under {FIRST} go to {TRIALS} by default",
    )
    parser.add_argument("--tastes", nargs="*")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--first", type=int, default=FIRST, help="number of the first repeat")
    parser.add_argument("--jobs", type=int, default=2, help="units at once, each in a process of its own")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="auto is float32 on a CPU; bfloat16 takes two thirds of the time where the CPU has matrix units "
        "for it, and many times as long where it has not",
    )
    parser.add_argument("--units", type=Path, help="file of finished units; units in it are not run again")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for the table, the figures and alignment.json; by default that of --units",
    )
    parser.add_argument("--report", action="store_true", help="only write the table of the finished units")
    asked = parser.parse_args(arguments)
    from benchmarks.alignment.figures import draw_figures
    from benchmarks.alignment.pool import TABLE
    from benchmarks.alignment.report import publish
    from benchmarks.alignment.study import Size, still_holds
    from benchmarks.alignment.table import Table

    of_the_table = not asked.tastes or set(asked.tastes) <= set(TABLE)
    is_trial = any(" " in method for method in asked.methods or ()) or not of_the_table or asked.first < FIRST
    own = asked.units.parent if asked.units else TRIALS if is_trial else RESULTS
    out = asked.out or (WORK / "quick" if asked.quick else own)
    units = asked.units or out / "alignment_units.jsonl"
    if asked.quick and not (asked.report or asked.units or asked.out):
        units.unlink(missing_ok=True)
    values = {**(QUICK if asked.quick else {}), "precision": asked.precision}
    known_units = list(read_lines(units))
    finished = [unit for unit in known_units if still_holds(unit, Size(**values))]
    if known_units and not finished and out == RESULTS:
        raise SystemExit(
            f"No unit of {units} was measured on this starter and at this size. Move it away, or begin a "
            "table of your own with --out DIR."
        )
    known = {(unit["taste"], unit["repeat"], unit["method"]) for unit in finished}
    missing = [] if asked.report else [unit for unit in wanted(asked) if unit not in known]
    units.parent.mkdir(parents=True, exist_ok=True)
    if missing:
        drop_half_line(units)
    failed = []
    for unit, found in measured(missing, values, jobs=asked.jobs):
        if isinstance(found, BaseException):
            failed.append(f"{unit}: {found}")
            continue
        finished.append(found)
        with open(units, "a", encoding="utf-8") as log:
            log.write(json.dumps(found) + "\n")
        told = f"{found['method']}, {found['taste']}, repeat {found['repeat']}: {found['seconds']:.0f} s"
        print(told, file=sys.stderr)
    words = [word for word in (sys.argv[1:] if arguments is None else arguments) if word != "--report"]
    if out == RESULTS:
        # Whichever part of the table was asked for, this is how to have all of it, and this is all of it.
        words = []
        whole = set(wanted(parser.parse_args([])))
        finished = [unit for unit in finished if (unit["taste"], unit["repeat"], unit["method"]) in whole]
    if finished:
        table = Table(finished)
        print(publish(table, out, " ".join(["python -m benchmarks.alignment", *words])))
        draw_figures(table, out)
    if failed:
        raise SystemExit("Units that failed; the same command tries them again:\n" + "\n".join(failed))
    if not finished:
        raise SystemExit(f"No unit of {units} was measured on this starter and at this size.")


def measured(
    missing: Sequence[Asked], values: dict[str, Any], *, jobs: int
) -> Iterator[tuple[Asked, dict[str, Any] | BaseException]]:
    """Units as they are finished, or what was raised in their place: repeat by repeat, `jobs` at once.

    `values` are those of a `Size` that differ from the table's. The pairs of the next repeat are drawn while
    one is measured.
    """
    from benchmarks.alignment.study import Size, Study

    spawn = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=leave_with_parent) as workers:

        def draw_pool(repeat: int) -> list[Future[None]]:
            turns = Study(WORK, repeat, Size(**values)).turns()
            return [workers.submit(prepare, WORK, values, repeat, turn) for turn in range(turns)]

        repeats = list(dict.fromkeys(repeat for _, repeat, _ in missing))
        ready = draw_pool(repeats[0]) if repeats else []
        for repeat, following in zip_longest(repeats, repeats[1:]):
            for part in ready:
                part.result()
            running = {
                workers.submit(work, WORK, values, *unit): unit for unit in missing if unit[1] == repeat
            }
            if following is not None:
                ready = draw_pool(following)
            for done in as_completed(running):
                yield running[done], done.exception() or done.result()


if __name__ == "__main__":
    # Ctrl-C ends it at once, and its workers with it; waiting for them would be for all that is still asked.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
