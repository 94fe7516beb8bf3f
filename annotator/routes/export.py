"""Export: what leaves, shown before it does, and the files."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from annotator import history, models, preferences
from annotator.projects import PASSING, OpenProject
from annotator.routes.common import InProject
from annotator.routes.loop import round_view
from annotator.rows import Run
from annotator.store import inside
from sail.rounds import export_facts
from sail.runfolder import MERGED_FOLDER, RunFolder

api = APIRouter()


LONGEST_TURN_S = 60.0
"""So long one waits for another file of the project to be made."""
PIPELINE = Path("export", MERGED_FOLDER)
"""In a run's folder, the whole pipeline."""


class Passing(FileResponse):
    """A file made for one answer: deleted once it is sent, or whoever asked is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


def passing(project: OpenProject, write: Callable[[Path], None], *, name: str, media_type: str) -> Passing:
    """An answer with what `write` puts into a file, one at a time in a project. If it fails, none is left."""
    # A second click waits for its turn: a page that only links to the file could not show a refusal.
    if not project.making.acquire(timeout=LONGEST_TURN_S):
        raise HTTPException(
            429, f"Another file of {project.store.name} is being made. Wait until it is, then ask again."
        )
    try:
        return Passing(_made(project, write), filename=name, media_type=media_type)
    finally:
        project.making.release()


def _made(project: OpenProject, write: Callable[[Path], None]) -> Path:
    # In the project, which has room for its images: where temporary files go is memory on some machines.
    handle, made = tempfile.mkstemp(prefix=PASSING, dir=project.store.folder)
    os.close(handle)
    try:
        write(Path(made))
    except BaseException:
        os.unlink(made)
        raise
    return Path(made)


@api.get("/projects/{project}/export")
def export(project: InProject) -> dict[str, Any]:
    """What an export holds, and the exports there are."""
    return export_of(project)


def export_of(project: OpenProject) -> dict[str, Any]:
    store, current = project.store, project.store.current_round()
    done = [run for run in store.runs() if run.job == "export" and run.what == "done"]
    labels, own = store.preference_counts()
    # Of flipped pairs as many as are told: while the audit is blind each would say what the judge chose.
    by_people = labels + store.counts().flipped
    return {
        "round": round_view(current) if current else None,
        "facts": export_facts(current) if current else {},
        "merged_bytes": models.float32_bytes(store.project().model),
        "exports": [export_view(project, run) for run in reversed(done)],
        "preferences": labels + own,
        "by_people": by_people,
        "by_model": labels + own - by_people,
    }


def export_view(project: OpenProject, run: Run) -> dict[str, Any]:
    files = files_of(project, run)
    pipeline = [file for file in files if is_of_pipeline(file)]
    return {
        "id": run.id,
        "round": run.round,
        "at": run.since,
        "name": f"{name_of(project, run)}.zip",
        "bytes": sum(file["bytes"] for file in files if not is_of_pipeline(file)),
        "files": [{**file, "index": index} for index, file in enumerate(files)],
        "pipeline": {
            "folder": str((project.store.run_folder(run) / PIPELINE).resolve()),
            "bytes": sum(file["bytes"] for file in pipeline),
        }
        if pipeline
        else None,
    }


def is_of_pipeline(file: Mapping[str, Any]) -> bool:
    """Whether it is a file of the whole pipeline. That is used where it lies: as an archive it would lie
    there twice, and nobody could tell while it is made."""
    return Path(file["path"]).is_relative_to(PIPELINE)


def files_of(project: OpenProject, run: Run) -> list[dict[str, Any]]:
    """The files of an export as its result lists them; none where the run is another one, or it lists none
    that can be understood."""
    try:
        result = RunFolder(project.store.run_folder(run)).result() or {}
    except ValueError:
        return []
    return list(result.get("files", [])) if run.job == "export" else []


def exported(project: OpenProject, run: Run, path: str) -> Path:
    """Where a file of an export lies. Outside where its result names another one; 404 where it is gone."""
    file = inside(inside(project.store.run_folder(run), "export"), Path("..", path))
    if not file.exists():
        raise HTTPException(404, f"{file.name} of the export is gone. Export the round anew.")
    return file


def name_of(project: OpenProject, run: Run) -> str:
    """What every file of an export is called by, so that two of them are never mixed up."""
    return f"{project.store.name}-round-{run.round}"


@api.get("/projects/{project}/export/{number}.zip")
def export_archive(number: int, project: InProject) -> FileResponse:
    """An export as one file: the LoRA in its forms and the model card."""
    run = project.store.run(number)
    name = name_of(project, run)
    files = [file for file in files_of(project, run) if not is_of_pipeline(file)]
    if not files:
        raise HTTPException(404, "There is no such export.")
    found, below = [exported(project, run, file["path"]) for file in files], exported(project, run, "export")
    return passing(
        project,
        lambda file: pack(file, found, below=below, name=name),
        name=f"{name}.zip",
        media_type="application/zip",
    )


def pack(file: Path, files: Sequence[Path], *, below: Path, name: str) -> None:
    """A zip with one folder called `name`, as it lies `below`. Stored: weights do not get smaller."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for found in files:
            archive.write(found, f"{name}/{found.relative_to(below)}")


@api.get("/projects/{project}/export/{number}/{index}")
def export_file(number: int, index: int, project: InProject) -> FileResponse:
    """One file of an export, as its result lists it."""
    run = project.store.run(number)
    files = files_of(project, run)
    if not 0 <= index < len(files):
        raise HTTPException(404, "There is no such file in this export.")
    file = exported(project, run, files[index]["path"])
    whose = name_of(project, run)
    name = file.name if file.name.startswith(whose) else f"{whose}-{file.name}"
    return FileResponse(file, filename=name, media_type="application/octet-stream")


@api.get("/projects/{project}/preferences.parquet")
def preference_table(project: InProject, people: bool = True) -> Passing:
    """Every judged pair with both images, under the column names of Pick-a-Pic; with `people=false` without
    the columns that are about people, for publishing."""
    to_publish = "" if people else "-to-publish"
    return passing(
        project,
        lambda file: preferences.write_parquet(project.store, file, about_people=people),
        name=f"{project.store.name}-preferences{to_publish}.parquet",
        media_type="application/vnd.apache.parquet",
    )


@api.get("/projects/{project}/history.csv")
def history_table(project: InProject) -> Passing:
    """Who said and decided what, when, as a table for a spreadsheet."""
    return passing(
        project,
        lambda file: history.write_csv(project.store, file),
        name=f"{project.store.name}-history.csv",
        media_type="text/csv",
    )
