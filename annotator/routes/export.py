"""Export: what leaves, shown before it does, and the files."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import FileResponse

from annotator import jobs, preferences
from annotator.projects import OpenProject
from annotator.routes.common import InProject
from annotator.routes.loop import round_view
from sail.runfolder import RunFolder

api = APIRouter()


@api.get("/projects/{project}/export")
def export(project: InProject) -> dict[str, Any]:
    """What an export holds, and the files of the newest one."""
    return export_of(project)


def export_of(project: OpenProject) -> dict[str, Any]:
    store, current = project.store, project.store.current_round()
    runs = [run for run in store.runs() if run.job == "export" and run.what == "done"]
    files: list[dict[str, Any]] = []
    if runs:
        result = RunFolder(store.run_folder(runs[-1])).result()
        assert result is not None
        files = [{**file, "index": index} for index, file in enumerate(result["files"])]
    preferred = store.preferences()
    return {
        "round": round_view(current) if current else None,
        "facts": jobs.export_facts(store, current) if current else {},
        "run": {"id": runs[-1].id, "round": runs[-1].round, "files": files} if runs else None,
        "preferences": len(preferred),
        "by_people": sum(one.source == "human" for one in preferred),
        "by_model": sum(one.source == "self" for one in preferred),
    }


@api.get("/projects/{project}/export/{number}/{index}")
def export_file(number: int, index: int, project: InProject) -> FileResponse:
    """One file of an export, as its result lists it."""
    run = project.store.run(number)
    folder = RunFolder(project.store.run_folder(run))
    result = folder.result() or {}
    files = result.get("files", []) if run.job == "export" else []
    if not 0 <= index < len(files):
        raise HTTPException(404, "There is no such file in this export.")
    file = folder.path / files[index]["path"]
    return FileResponse(file, filename=file.name, media_type="application/octet-stream")


@api.get("/projects/{project}/preferences.parquet")
def preference_table(project: InProject) -> Response:
    """Every judged pair with both images, under the column names of Pick-a-Pic."""
    name = f"{project.store.name}-preferences.parquet"
    return Response(
        preferences.parquet(project.store),
        media_type="application/vnd.apache.parquet",
        headers={"content-disposition": content_disposition(name)},
    )


def content_disposition(name: str) -> str:
    return f"attachment; filename*=utf-8''{quote(name)}"
