"""How long the next run will take here, by how long the last ones took. Knows finished runs and costs."""

from __future__ import annotations

from contextlib import suppress
from statistics import median
from typing import Any

from annotator import jobs
from annotator.store import Outside, Store
from sail import cost
from sail.rounds import NextStep
from sail.runfolder import RunFolder

RECENT_RUNS = 3


def seconds_of(store: Store, step: NextStep) -> float | None:
    """Seconds of the run that `step` asks for; None where it asks for none or nothing like it was timed."""
    if step.name not in ("propose", "train"):
        return None
    folders = _finished(store, step.name)
    rate = _median_pace(folders)
    if rate is None:
        return None
    # A model is what it is: the last run has said it.
    distilled = is_distilled(folders[-1])
    if step.name == "propose":
        evaluations = cost.evaluations_to_propose(jobs.propose_request(store), distilled=distilled)
    else:
        # Where there is a judge it is asked for pairs first, so that these are human alone.
        request, counts = jobs.train_request(store, ()), store.counts()
        evaluations = cost.evaluations_to_train(
            request,
            judged_pairs=min(counts.trainable, cost.MAX_LEARNED_JUDGED) + counts.winners - counts.trainable,
            human_pairs=counts.trainable,
            self_pairs=0,
            tie_pairs=counts.ties,
            distilled=distilled,
        )
    return float(round(rate * evaluations))


def _finished(store: Store, job: str) -> list[RunFolder]:
    """The last finished runs of that job, or of any job before its first."""
    # Their seconds are of the last process alone, which did no more than the end of them.
    resumed = store.resumed_runs()
    done = [
        run
        for run in store.runs()
        if run.what == "done" and run.job in ("draw", "propose", "train") and run.id not in resumed
    ]
    # An evaluation that is learned from does not take what one takes that is drawn with.
    own = [run for run in done if run.job == job] or done
    folders = []
    for run in own[-3 * RECENT_RUNS :]:
        with suppress(Outside):
            folders.append(RunFolder(store.run_folder(run)))
    processes = store.project().launcher.processes
    as_many = [folder for folder in folders if _processes(folder) == processes]
    return (as_many or folders)[-RECENT_RUNS:]


def _processes(folder: RunFolder) -> int:
    with suppress(ValueError, TypeError, AttributeError):
        return int(_told(folder).get("made_with", {}).get("processes", 1))
    return 1


def _median_pace(folders: list[RunFolder]) -> float | None:
    known = [pace for pace in map(pace_of, folders) if pace is not None]
    return median(known) if known else None


def pace_of(folder: RunFolder) -> float | None:
    """Seconds an evaluation of a propose or train run; None before it has ended, and where its files are gone
    or cannot be read."""
    result = _told(folder)
    if not result:
        return None
    try:
        request = folder.request(extra="ignore")
        return float(result["seconds"]) / _evaluations(request, result, distilled=is_distilled(folder))
    except (ValueError, LookupError, TypeError, AttributeError):
        # Others may have written what is no result of such a run.
        return None


def _evaluations(request: Any, result: dict[str, Any], *, distilled: bool) -> float:
    if request.kind != "train":
        return cost.evaluations_to_propose(request, distilled=distilled)
    return cost.evaluations_to_train(
        request,
        judged_pairs=result["judge_accuracy"]["n"] + (result.get("human_agreement") or {}).get("n", 0),
        human_pairs=result["human_pairs"],
        self_pairs=result["self_pairs"],
        tie_pairs=result.get("tie_pairs", 0),
        distilled=distilled,
        times_drawn=result.get("looks", 1),
    )


def is_distilled(folder: RunFolder) -> bool:
    """Whether guidance is distilled into the run's model; no earlier version's result says so."""
    return bool(_told(folder).get("distilled"))


def _told(folder: RunFolder) -> dict[str, Any]:
    """The result; {} where there is none that can be read: an estimate must not take the page along."""
    try:
        return folder.result() or {}
    except (OSError, ValueError):
        return {}
