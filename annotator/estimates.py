"""How long the next run will take here, by how long the last ones took. Knows finished runs and costs."""

from __future__ import annotations

from statistics import median

from annotator import jobs
from annotator.rows import Run
from annotator.store import Store
from sail import cost
from sail.rounds import NextStep
from sail.runfolder import RunFolder

RECENT_RUNS = 3


def seconds_of(store: Store, step: NextStep) -> float | None:
    """Seconds of the run that `step` asks for; None where it asks for none or nothing like it was timed."""
    if step.name == "propose":
        evaluations = cost.evaluations_to_propose(jobs.propose_request(store))
    elif step.name == "train":
        evaluations = cost.evaluations_to_train(
            jobs.train_request(store), judged_pairs=store.counts().winners
        )
    else:
        return None
    rate = seconds_per_evaluation(store)
    return None if rate is None else float(round(rate * evaluations))


def seconds_per_evaluation(store: Store) -> float | None:
    """Median over the last finished runs; None before the first."""
    done = [run for run in store.runs() if run.what == "done" and run.job in ("draw", "propose", "train")]
    rates = [_rate(store, run) for run in done[-RECENT_RUNS:]]
    known = [rate for rate in rates if rate is not None]
    return median(known) if known else None


def _rate(store: Store, run: Run) -> float | None:
    folder = RunFolder(store.run_folder(run))
    result = folder.result()
    if result is None:
        return None
    request = folder.request()
    if run.job == "train":
        judged = result["judge_accuracy"]["n"] + (result.get("human_agreement") or {}).get("n", 0)
        evaluations = cost.evaluations_to_train(request, judged_pairs=judged)
    else:
        evaluations = cost.evaluations_to_propose(request)
    return float(result["seconds"]) / evaluations
