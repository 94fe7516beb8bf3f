"""What every route stands on: who asks, for which project, and what an answer looks like."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import Cookie, Depends, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from annotator import jobs
from annotator.faults import faults_of, sentence
from annotator.projects import OpenProject, Projects
from annotator.rows import Answer, Review, Run
from annotator.store.people import called

PERSON = r"[\w.@-]{1,64}"
UNDO_THROUGH = 20
"""So many of a person's last answers can be taken back."""
FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


B = TypeVar("B", bound=Body)


Uuid = Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]


class Sent(BaseModel):
    """One of the answers that a browser sends together: its id, and what is looked at answer by answer."""

    model_config = ConfigDict(frozen=True, extra="allow")
    uuid: Uuid


Id = Annotated[str, Field(min_length=1, max_length=64)]


def all_projects(request: Request) -> Projects:
    found: Projects = request.app.state.projects
    return found


def opened(
    project: str,
    projects: Annotated[Projects, Depends(all_projects)],
    x_sail_project: Annotated[str, Header()] = "",
    of: str = "",
) -> OpenProject:
    """The project of that name, if it is the one that the page is of. It says so in a header, or in `of`."""
    try:
        found = projects.get(project)
    except KeyError:
        now = projects.name_of(x_sail_project, formerly=project)
        if now is None:
            raise
        raise HTTPException(
            404,
            f"{project} is called {now} now. Open it in Setup: what was not sent yet is sent then.",
        ) from None
    if (x_sail_project or of or found.store.identity) != found.store.identity:
        raise HTTPException(
            409,
            f"Another project that is called {project} answers here than the one this page is of. What was "
            "not sent yet waits in this browser for that one. Reload the page to work in this one.",
        )
    return found


def person(sail_person: Annotated[str | None, Cookie()] = None) -> str:
    """The name that this browser gave itself; accounts come later."""
    if sail_person is None or not re.fullmatch(PERSON, sail_person):
        raise HTTPException(422, "Your browser has not said who you are. Allow cookies and reload the page.")
    return sail_person


InProject = Annotated[OpenProject, Depends(opened)]
Person = Annotated[str, Depends(person)]


def named(person: str | None, names: Mapping[str, str], *, to: str | None = None) -> str | None:
    """What a person is called on the page of `to`: never their id, which is what a browser is known by."""
    if person is None:
        return None
    return "you" if person == to else called(person, names)


OF_ANOTHER_VERSION = ("missing", "extra_forbidden")


def told_apart(sent: Sequence[Sent], body: type[B]) -> tuple[list[B], dict[str, str]]:
    """Those that can be answers, in their order, and by uuid why each of the others can be none.

    Refused together they would be sent again for ever, and one of them would keep back all after it.
    """
    good, faulty = [], {}
    for one in sent:
        try:
            good.append(body.model_validate({"uuid": one.uuid, **(one.model_extra or {})}))
        except ValidationError as error:
            if any(fault["type"] in OF_ANOTHER_VERSION for fault in error.errors()):
                # No answer is at fault but the page that sent it: what is refused leaves the browser.
                raise RequestValidationError(error.errors()) from error
            faulty[one.uuid] = sentence(faults_of(error.errors())[0])
    return good, faulty


def receipt(
    answers: Sequence[Answer | Review], refusals: Sequence[str | None], faulty: Mapping[str, str]
) -> dict[str, Any]:
    """What a page need not send again: answers that are on disk, and those that were refused, with why.

    `faulty` are those that could be no answers.
    """
    outcomes = list(zip(answers, refusals, strict=True))
    refused = {one.uuid: why for one, why in outcomes if why is not None}
    return {
        "acknowledged": [one.uuid for one, why in outcomes if why is None],
        "refused": {**faulty, **refused},
    }


def image_url(project: OpenProject, uid: str) -> str:
    return f"/api/projects/{quote(project.store.name)}/images/{uid}"


def label_counts(project: OpenProject) -> dict[str, int]:
    """How far labelling is; `planned` counts pairs that are still being drawn."""
    store = project.store
    counts, settings = store.counts(), store.project().settings
    coming = sum(_pairs_coming(project, run) for run in store.runs() if run.job == "draw" and run.unfinished)
    return {
        **asdict(counts),
        "planned": counts.drawn + coming,
        "held_ties": counts.ties if settings.loss.hold_ties > 0 else 0,
        "needed": settings.min_human_pairs,
    }


def _pairs_coming(project: OpenProject, run: Run) -> int:
    request = jobs.request_of(project.store, run)
    if request is None:
        # The run ends when its turn comes, and says so.
        return 0
    left = len(request.prompts) - project.store.count_taken_in(run)
    return int(left * (request.pairs_to_show or request.num_candidates // 2))


def with_etag(request: Request, value: Any) -> Response:
    body = json.dumps(value).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
