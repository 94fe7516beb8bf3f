"""Setup: projects, their settings and prompts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field

from annotator import jobs
from annotator.faults import about
from annotator.launcher import Launcher
from annotator.projects import Projects
from annotator.routes.common import Body, InProject, Person, all_projects
from sail.model_ref import ModelRef
from sail.rounds import parse_prompts
from sail.settings import LoopSettings

MAX_PROMPTS_CHARS = 1_500_000
api = APIRouter()


class ProjectBody(Body):
    name: Annotated[str, Field(max_length=60)]
    model: ModelRef
    download: bool = False
    prompts: Annotated[str, Field(max_length=MAX_PROMPTS_CHARS)]
    seed_pairs: int = Field(60, ge=2, le=5000)
    settings: dict[str, Any] = Field(default_factory=dict)


class SettingsBody(Body):
    settings: dict[str, Any]
    launcher: Launcher | None = None


class ModelBody(Body):
    model: ModelRef
    download: bool = False


class PromptsBody(Body):
    prompts: Annotated[str, Field(max_length=MAX_PROMPTS_CHARS)]
    version: int | None = None
    """That the page was given with the prompts it shows."""


class NameBody(Body):
    name: Annotated[str, Field(max_length=60)]


@api.get("/projects")
def list_projects(projects: Annotated[Projects, Depends(all_projects)]) -> dict[str, list[str]]:
    return {"projects": projects.names(), "removed": projects.removed()}


@api.post("/projects")
def create_project(
    body: ProjectBody, projects: Annotated[Projects, Depends(all_projects)], who: Person
) -> dict[str, str]:
    created = projects.create(
        body.name,
        model=body.model,
        prompts=body.prompts,
        seed_pairs=body.seed_pairs,
        settings=body.settings,
        download=body.download,
        by=who,
    )
    return {"project": created.store.name}


@api.post("/projects/{project}/rename")
def rename_project(
    body: NameBody, project: InProject, projects: Annotated[Projects, Depends(all_projects)], who: Person
) -> dict[str, str]:
    projects.rename(project.store.name, body.name, by=who)
    return {"project": body.name}


@api.post("/projects/{project}/remove")
def remove_project(
    project: InProject, projects: Annotated[Projects, Depends(all_projects)], _: Person
) -> dict[str, str]:
    return {"removed": projects.remove(project.store.name), "open": projects.default}


@api.post("/removed/put-back")
def put_back(
    body: NameBody, projects: Annotated[Projects, Depends(all_projects)], _: Person
) -> dict[str, str]:
    projects.put_back(body.name)
    return {"project": body.name}


@api.get("/models/sampling")
def sampling(
    source: str, projects: Annotated[Projects, Depends(all_projects)], revision: str | None = None
) -> dict[str, Any]:
    """How a new project on this model would draw, and of what, as far as can be seen without loading it."""
    model = projects.model(ModelRef(source=source, revision=revision))
    usual = defaults(model).sampling.model_dump(include={"steps", "guidance"})
    return {**usual, "words": projects.starter_words(model)}


@api.get("/projects/{project}/setup")
def setup(project: InProject, projects: Annotated[Projects, Depends(all_projects)]) -> dict[str, Any]:
    version = project.store.prompts_version()  # Before the prompts: too old is refused, too new overwrites.
    found = project.store.project()
    return {
        "name": project.store.name,
        "folder": str(project.store.folder),
        "model": found.model.model_dump(),
        "download": found.download,
        "prompts": "\n".join(found.prompts),
        "prompts_version": version,
        "words": projects.starter_words(found.model),
        "settings": found.settings.model_dump(mode="json"),
        "launcher": found.launcher.model_dump(),
        "defaults": {**defaults(found.model).model_dump(mode="json"), "launcher": Launcher().model_dump()},
    }


def defaults(model: ModelRef) -> LoopSettings:
    """What a new project on this model would begin with."""
    try:
        return LoopSettings.for_model(model)
    except ValueError:
        return LoopSettings()  # Its own settings were altered since; this project has its copy.


@api.post("/projects/{project}/settings")
def change_settings(body: SettingsBody, project: InProject, who: Person) -> dict[str, Any]:
    # What is not said of it stays: somebody else may have changed it since the page was loaded.
    said = body.launcher.model_dump(exclude_unset=True) if body.launcher else {}
    launcher = project.store.project().launcher.model_copy(update=said)
    if said:
        with about("launcher.command"):
            launcher.checked()
    if body.settings:
        jobs.change_settings(project.store, body.settings, by=who)
    if said:
        project.store.set_launcher(launcher, by=who)
    now = project.store.project()
    return {"settings": now.settings.model_dump(mode="json"), "launcher": now.launcher.model_dump()}


@api.post("/projects/{project}/model")
def move_model(
    project: InProject, body: ModelBody, projects: Annotated[Projects, Depends(all_projects)], who: Person
) -> dict[str, Any]:
    projects.move_model(project.store.name, body.model, download=body.download, by=who)
    return {"model": project.store.project().model.model_dump()}


@api.post("/projects/{project}/prompts")
def change_prompts(body: PromptsBody, project: InProject, who: Person) -> dict[str, int]:
    with about("prompts"):
        prompts = parse_prompts(body.prompts)
        version = project.store.set_prompts(prompts, by=who, version=body.version)
    return {"prompts": len(prompts), "version": version}
