"""The loop: where things stand, runs and rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import Field

from annotator import estimates, jobs
from annotator.projects import OpenProject, Projects
from annotator.routes.common import (
    FOR_EVER,
    Body,
    InProject,
    Person,
    all_projects,
    label_counts,
    with_etag,
)
from annotator.routes.review import review_counts
from annotator.runs import RunView
from annotator.store.files import inside
from sail.rounds import Round
from sail.runfolder import RunFolder

MAX_CURVE_POINTS = 300
FEW_TRIES = 3
"""That are done, the newest, which a page is told of at every poll."""
A_YEAR_S = 31_536_000
api = APIRouter()


class RunBody(Body):
    job: Literal["draw", "propose", "train", "export"]
    count: int = Field(20, ge=1, le=5000)
    """Pairs to draw."""
    self_fraction: float | None = Field(None, ge=0, le=1)
    without_audit: bool = False
    """Train although the audit sample is not decided."""
    merged: bool = False
    """Export the whole pipeline as well."""


class CurrentBody(Body):
    round: Annotated[int, Field(ge=0)] | None
    """None is the base model."""


@api.get("/projects/{project}/identity")
def identity(project: InProject, who: Person, response: Response) -> dict[str, str]:
    """Which project this is. Begins the year anew in which a browser knows who its person is."""
    # Some browsers keep what scripts set for days alone.
    response.set_cookie("sail_person", who, max_age=A_YEAR_S, samesite="strict")
    return {"id": project.store.identity}


@api.get("/projects/{project}/status")
def status(project: InProject, request: Request) -> Response:
    """Everything that a page polls for, with an ETag."""
    return with_etag(request, status_of(project, all_projects(request)))


def status_of(project: OpenProject, projects: Projects) -> dict[str, Any]:
    store, runner = project.store, project.runner
    current, step = store.current_round(), jobs.next_step(store)
    facts, names = store.training_facts(), store.names()
    return {
        "project": store.name,
        "projects": projects.names(),
        "labels": label_counts(project),
        "newest_label": store.newest_label(),
        "next": {"name": step.name, "round": step.round, "seconds": estimates.seconds_of(store, step)},
        # Not asdict, which copies each value: of many runs that took longer than all the rest.
        "runs": [vars(view) for view in told(runner.views(store))],
        "rounds": [
            {**round_view(round_), **fact, "by": names.get(fact.get("by", ""))}
            for round_ in store.rounds()
            for fact in (facts.get(round_.round, {}),)
        ],
        "current": current.round if current else None,
        "review": review_counts(project),
        "elsewhere": [
            {"project": other.name, "job": run.job, "round": run.round}
            for other, run in runner.running()
            if other.folder != store.folder
        ],
    }


def told(views: Sequence[RunView]) -> list[RunView]:
    """Without tries that are long done: there may be a thousand, and Try asks for them by another route."""
    done = [view.id for view in views if view.job == "try" and view.state == "done"]
    over = frozenset(done[FEW_TRIES:])
    return [view for view in views if view.id not in over]


def round_view(trained: Round) -> dict[str, Any]:
    return {**trained.model_dump(mode="json", exclude={"adapter"}), "sha256": trained.sha256[:12]}


# Runs and rounds


@api.post("/projects/{project}/runs")
def start_run(body: RunBody, project: InProject, who: Person) -> dict[str, Any]:
    store = project.store
    if body.job == "draw":
        run = jobs.draw(store, body.count, by=who)
    elif body.job == "propose":
        run = jobs.propose(store, by=who)
    elif body.job == "train":
        if not body.without_audit:
            jobs.require_audit(store)
        run = jobs.train(store, self_fraction=body.self_fraction, by=who)
    else:
        run = jobs.export(store, merged=body.merged, by=who)
    project.runner.wake()
    asked, *_ = store.run_history(run)
    # Of a training: how many judged pairs it does without, and why.
    return {**asdict(project.runner.view(store, run)), "left_out": asked["payload"].get("left_out", "")}


@api.post("/projects/{project}/runs/{number}/stop")
def stop_run(number: int, project: InProject, who: Person) -> dict[str, Any]:
    project.runner.stop(project.store, number, by=who)
    return asdict(project.runner.view(project.store, project.store.run(number)))


@api.post("/projects/{project}/runs/{number}/end")
def end_run(number: int, project: InProject, who: Person) -> dict[str, Any]:
    """End a run that does not answer a stop. Waits some seconds for its process to leave."""
    project.runner.end(project.store, number, by=who)
    return asdict(project.runner.view(project.store, project.store.run(number)))


@api.post("/projects/{project}/runs/{number}/resume")
def resume_run(number: int, project: InProject, who: Person) -> dict[str, Any]:
    project.runner.resume(project.store, number, by=who)
    return asdict(project.runner.view(project.store, project.store.run(number)))


@api.get("/projects/{project}/runs/{number}")
def run_detail(number: int, project: InProject, request: Request) -> Response:
    """Curves, samples and the end of the log of one run."""
    run = project.store.run(number)
    folder = RunFolder(project.store.run_folder(run))
    view = project.runner.view(project.store, run)
    return with_etag(request, run_detail_of(folder, view))


def run_detail_of(folder: RunFolder, view: RunView) -> dict[str, Any]:
    troubled = view.state in ("failed", "interrupted") or view.quiet_min or view.overdue
    return {
        "metrics": thinned(folder.metrics()) if view.job == "train" else [],
        "samples": samples(folder),
        "log": folder.log_tail(30) if troubled else "",
    }


def thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most MAX_CURVE_POINTS of them, the last one included."""
    stride = -(-len(lines) // MAX_CURVE_POINTS) or 1
    return lines[::-1][::stride][::-1]


def samples(folder: RunFolder) -> dict[str, Any]:
    """Steps at which samples were drawn, and their prompts."""
    root = folder.path / "samples"
    steps = sorted(int(path.name.removeprefix("step-")) for path in root.glob("step-[0-9]*"))
    try:
        prompts = json.loads((root / "prompts.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        prompts = []
    complete = [
        step for step in steps if all(_sample(folder, step, i).is_file() for i in range(len(prompts)))
    ]
    return {"steps": complete, "prompts": prompts}


def _sample(folder: RunFolder, step: int, index: int) -> Path:
    return inside(folder.path, f"samples/step-{step:05d}/{index}.png")


@api.get("/projects/{project}/runs/{number}/samples/{step}/{index}")
def sample(number: int, step: int, index: int, project: InProject) -> FileResponse:
    folder = RunFolder(project.store.run_folder(project.store.run(number)))
    file = _sample(folder, step, index)
    if not file.is_file():
        raise HTTPException(404, "There is no such sample.")
    return FileResponse(file, media_type="image/png", headers=FOR_EVER)


@api.post("/projects/{project}/current")
def make_current(body: CurrentBody, project: InProject, who: Person) -> dict[str, int | None]:
    jobs.make_current(project.store, body.round, by=who)
    return {"current": body.round}
