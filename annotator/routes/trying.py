"""Trying: a prompt drawn with base and any rounds, side by side, and what was tried before."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from annotator import looks
from annotator.projects import OpenProject
from annotator.routes.common import Body, InProject, Person, all_projects, image_url, with_etag

api = APIRouter()


class TryBody(Body):
    prompt: str
    rounds: list[int | None] = Field(max_length=32)
    """None is the base model."""
    strength: float = Field(1.0, ge=0, le=1.5)
    count: int = Field(1, ge=1, le=4)
    noise_seed: int = Field(0, ge=0, le=999_999)


@api.get("/projects/{project}/tries")
def tries(project: InProject, request: Request, who: Person) -> Response:
    """The last tries, the newest first, and the words that their model knows, where that can be said."""
    found = [try_view(project, one, who) for one in looks.tries(project.store)]
    words = all_projects(request).starter_words(project.store.project().model)
    return with_etag(request, {"tries": found, "words": words})


def try_view(project: OpenProject, one: looks.Try, who: str) -> dict[str, Any]:
    images = one.images or [[] for _ in one.looks]
    return {
        "run": asdict(project.runner.view(project.store, one.run)),
        "mine": one.run.by == who,
        "prompt": one.prompt,
        "count": one.count,
        "noise_seed": one.noise_seed,
        "looks": [
            {"round": number, "strength": strength, "images": [image_url(project, uid) for uid in own]}
            for (number, strength), own in zip(one.looks, images, strict=True)
        ],
    }


@api.post("/projects/{project}/tries")
def start_try(body: TryBody, project: InProject, who: Person) -> dict[str, int]:
    run = looks.try_prompt(
        project.store,
        body.prompt,
        body.rounds,
        strength=body.strength,
        count=body.count,
        noise_seed=body.noise_seed,
        by=who,
    )
    project.runner.wake()
    return {"run": run.id}
