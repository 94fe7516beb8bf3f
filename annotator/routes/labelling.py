"""Labelling: pairs to a person, answers from them, images under their opaque ids.

Every handler is a plain function of an open project, a person and a body, so that a test can call it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse
from PIL import Image
from pydantic import Field

from annotator import jobs
from annotator.projects import OpenProject
from annotator.routes.common import (
    FOR_EVER,
    UNDO_THROUGH,
    Body,
    Id,
    InProject,
    Person,
    Sent,
    Uuid,
    image_url,
    label_counts,
    receipt,
    told_apart,
)
from annotator.rows import Answer, Order, Reason, ShownPair
from annotator.store.people import called
from sail.config import MAX_SIDE
from sail.records import LabelValue

api = APIRouter()


class AnswerBody(Body):
    uuid: Uuid
    pair: Annotated[str, Field(max_length=64)] = ""
    value: LabelValue | Literal["undo", "reasons"]
    elapsed_ms: int = Field(0, ge=0, le=86_400_000)
    undoes: Uuid | None = None
    of: Uuid | None = None
    reasons: tuple[Reason, ...] = Field((), max_length=10)
    text: Annotated[str, Field(max_length=500)] = ""


class AnswersBody(Body):
    answers: list[Sent] = Field(min_length=1, max_length=200)
    """Each an AnswerBody."""


class HoldingBody(Body):
    holding: list[Id] = Field([], max_length=50)
    """Pairs that the page has: it keeps them where nobody else holds them."""


class BrokenBody(Body):
    pair: Id


class NameBody(Body):
    name: Annotated[str, Field(max_length=200)]


class OrderBody(Body):
    order: Order


@api.post("/projects/{project}/pairs/next")
def next_pairs(body: HoldingBody, project: InProject, who: Person) -> dict[str, Any]:
    """The pairs this person holds, and what undo can go back through."""
    # Counted first: who is told of more pairs than they were given asks again, never the other way round.
    store, labels = project.store, label_counts(project)
    queue, names = project.assignments.next_pairs(who, holding=body.holding), store.names()
    return {
        "pairs": [shown(project, pair) for pair in queue.pairs],
        "past": [
            {
                "uuid": past.uuid,
                "value": past.value,
                "pair": shown(project, past.pair),
                "reasons": past.reasons,
                "text": past.text,
            }
            for past in store.last_labels(who, UNDO_THROUGH)
        ],
        "with_others": queue.with_others,
        # Names alone: an id is what a browser is known by.
        "holders": sorted(called(holder, names) for holder in queue.holders),
        "name": names.get(who),
        "order": order_of(project),
        "usual_ms": store.usual_label_ms(who),
        "labels": labels,
    }


def order_of(project: OpenProject) -> dict[str, Any]:
    """The order in which pairs come, and how many open pairs the judge can order."""
    order = project.store.order()
    return {"order": order, "judged": len(jobs.open_margins(project.store)) if order == "uncertain" else 0}


@api.post("/projects/{project}/order")
def set_order(body: OrderBody, project: InProject, who: Person) -> dict[str, Any]:
    """The order for everybody, from the next pairs on."""
    project.store.set_order(body.order, by=who)
    return order_of(project)


@api.post("/projects/{project}/name")
def set_name(body: NameBody, project: InProject, who: Person) -> dict[str, str]:
    """What this person is called. Whoever they are stays as it is."""
    return {"name": project.store.name_person(who, body.name)}


def shown(project: OpenProject, pair: ShownPair) -> dict[str, str]:
    sides = {"left": image_url(project, pair.left), "right": image_url(project, pair.right)}
    return {"id": pair.id, "prompt": pair.prompt, **sides}


@api.post("/projects/{project}/pairs/doubted")
def doubted_pairs(project: InProject, who: Person) -> dict[str, Any]:
    """This person's answers that the current judge contradicts, without a word on what they were."""
    store, pairs = project.store, jobs.doubted_pairs(project.store, who)
    return {"pairs": [shown(project, pair) for pair in store.show_pairs(pairs, to=who)]}


@api.post("/projects/{project}/pairs/release")
def release_pairs(project: InProject, who: Person) -> dict[str, bool]:
    project.assignments.release(who)
    return {"released": True}


@api.post("/projects/{project}/labels")
def record_labels(body: AnswersBody, project: InProject, who: Person) -> dict[str, Any]:
    """Keep answers, in their order. What is acknowledged is on disk; the same uuid again changes nothing."""
    sound, faulty = told_apart(body.answers, AnswerBody)
    answers = [Answer(**answer.model_dump()) for answer in sound]
    refusals = project.store.record_answers(answers, by=who)
    return {
        **receipt(answers, refusals, faulty),
        "usual_ms": project.store.usual_label_ms(who),
        "labels": label_counts(project),
    }


@api.post("/projects/{project}/pairs/broken")
def broken_pair(body: BrokenBody, project: InProject, who: Person) -> dict[str, str | None]:
    """A page could not show this pair. It is withdrawn where a file is at fault, not a connection."""
    store = project.store
    files = map(store.image_file, store.candidates_of(body.pair))
    why = next(filter(None, map(_unreadable, files)), None)
    if why is not None:
        store.withdraw_pair(body.pair, why=why, by=who)
    return {"withdrawn": why}


def _unreadable(file: Path) -> str | None:
    """What is wrong with an image file, in a sentence; None where it can be shown."""
    try:
        # Others may have made the file, and PIL would hand some formats to other programs.
        with Image.open(file, formats=("PNG",)) as opened:
            if max(opened.size) > MAX_SIDE:
                return f"The image file {file.name} has more than {MAX_SIDE} pixels across."
            opened.load()
    except FileNotFoundError:
        # Where all of the folder is gone, a disk is: its pairs come back with it.
        return f"The image file {file.name} is gone from its run folder." if file.parent.is_dir() else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            # The system could not read it now, which says nothing of the file.
            return None
        # What PIL raises for one broken byte or another.
        return f"The image file {file.name} cannot be read: {error}."
    return None


@api.get("/projects/{project}/images/{uid}")
def image(uid: str, project: InProject) -> FileResponse:
    """A candidate's image under its random id. Follows no link out of the run folder."""
    file = project.store.image_file(uid)
    if not file.is_file():
        raise HTTPException(404, f"The image file {file.name} is gone from its run folder.")
    return FileResponse(file, media_type="image/png", headers=FOR_EVER)
