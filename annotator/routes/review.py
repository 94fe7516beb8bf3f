"""Review: the model's own pairs, the audit of its judge, bulk approval and the mixup ratio."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from annotator import audit, jobs
from annotator.audit import Side
from annotator.projects import OpenProject
from annotator.routes.common import (
    Body,
    Id,
    InProject,
    Person,
    Sent,
    Uuid,
    image_url,
    named,
    receipt,
    told_apart,
    with_etag,
)
from annotator.rows import Audit, Review, ReviewPair
from sail.records import Decision

api = APIRouter()


class ReviewBody(Body):
    uuid: Uuid
    self_pair: Id
    decision: Decision | Side | Literal["undo"] | None
    seen: Uuid | Literal[""] | None = None
    undoes: Uuid | None = None


class ReviewsBody(Body):
    answers: list[Sent] = Field(min_length=1, max_length=2000)
    """Each a ReviewBody."""


class BulkBody(Body):
    uuid: Uuid
    run: int
    threshold: float = Field(ge=0, le=100)
    pairs: list[Id] = Field(min_length=1, max_length=20_000)
    """What the person saw before they approved it."""


class UndoBulkBody(Body):
    uuid: Uuid
    bulk: Uuid


@api.get("/projects/{project}/review")
def review(project: InProject, who: Person, request: Request) -> Response:
    """The self pairs that wait for the next round, the audit sample first, then the least certain first."""
    return with_etag(request, review_of(project, who))


def review_of(project: OpenProject, who: str) -> dict[str, Any]:
    store = project.store
    run = jobs.proposal(store)
    bulk, names = store.last_bulk(run) if run else None, store.names()
    pairs = store.review_pairs(run) if run else []
    return {
        "run": run.id if run else None,
        "round": jobs.next_round(store),
        "audit": audit_view(store.audit(run)) if run else None,
        "bulk": {**asdict(bulk), "by": named(bulk.by, names, to=who)} if bulk else None,
        "pairs": [pair_view(project, pair, names, who) for pair in pairs],
    }


def audit_view(found: Audit) -> dict[str, Any]:
    return {
        "pairs": found.pairs,
        "decided": found.decided,
        "done": found.done,
        "error": audit.error(found.audited).model_dump(),
        "by_threshold": [
            {"over": one.over, "error": one.error.model_dump()} for one in audit.by_threshold(found.audited)
        ],
    }


def pair_view(project: OpenProject, pair: ReviewPair, names: Mapping[str, str], who: str) -> dict[str, Any]:
    """A pair as a person may see it: where the audit is blind, without a word on what the judge thinks."""
    winner_left = audit.winner_side(pair.id) == "left"
    left, right = (pair.winner, pair.loser) if winner_left else (pair.loser, pair.winner)
    said = {
        "uuid": pair.uuid,
        "choice": choice(pair),
        "by": named(pair.by, names, to=who),
        "at": pair.at,
        "in_bulk": bool(pair.bulk),
    }
    return {
        "id": pair.id,
        "prompt": pair.prompt,
        "left": image_url(project, left),
        "right": image_url(project, right),
        "in_audit": pair.in_audit,
        "said": said if pair.decision else None,
        "judge": None if pair.blind else judge_view(pair),
    }


def choice(pair: ReviewPair) -> str | None:
    """What was decided, as the side that is better: to a blind person it says nothing of the judge."""
    if pair.decision is None or pair.decision == "drop":
        return pair.decision
    winner, loser = ("left", "right") if audit.winner_side(pair.id) == "left" else ("right", "left")
    return winner if pair.decision == "approve" else loser


def judge_view(pair: ReviewPair) -> dict[str, Any]:
    """The judge's opinion: words, and the figures behind them."""
    side = audit.winner_side(pair.id)
    rewards = (pair.winner_reward, pair.loser_reward)
    left, right = rewards if side == "left" else rewards[::-1]
    return {
        "side": side,
        "certainty": audit.certainty(pair.clarity),
        "clarity": pair.clarity,
        "rewards": {"left": left, "right": right},
        "margin": pair.margin,
        "margin_error": pair.margin_error,
        "p": 1 / (1 + math.exp(-min(pair.margin, 700.0))),
    }


def review_counts(project: OpenProject) -> dict[str, Any] | None:
    run = jobs.proposal(project.store)
    if run is None:
        return None
    counts = project.store.review_counts(run)
    return {
        "run": run.id,
        "round": run.round,
        **{name: getattr(counts, name) for name in ("pairs", "approve", "flip", "drop", "unreviewed")},
        "audit": {
            "pairs": counts.audit_pairs,
            "decided": counts.audit_decided,
            "done": counts.audit_done,
        },
    }


@api.post("/projects/{project}/reviews")
def record_reviews(body: ReviewsBody, project: InProject, who: Person) -> dict[str, Any]:
    """Keep decisions, in their order. What is acknowledged is on disk; the same uuid again changes nothing.

    A side stands for approve or flip, for who does not know what the judge chose; undo takes back one of
    their own, so that what stood before it stands again.
    """
    sound, faulty = told_apart(body.answers, ReviewBody)
    reviews = [Review(**answer.model_dump()) for answer in sound]
    refusals = project.store.record_reviews(reviews, by=who)
    return {
        **receipt(reviews, refusals, faulty),
        "review": review_counts(project),
    }


@api.post("/projects/{project}/reviews/bulk")
def approve_in_bulk(body: BulkBody, project: InProject, who: Person) -> dict[str, int]:
    """Approve what was shown and is still undecided, as one action that can be taken back."""
    run = project.store.run(body.run)
    approved = project.store.approve_in_bulk(
        run, body.pairs, threshold=body.threshold, uuid=body.uuid, by=who
    )
    return {"approved": approved}


@api.post("/projects/{project}/reviews/bulk/undo")
def undo_bulk(body: UndoBulkBody, project: InProject, who: Person) -> dict[str, bool]:
    project.store.undo_bulk(body.bulk, uuid=body.uuid, by=who)
    return {"undone": True}


@api.get("/projects/{project}/mixup")
def mixup(
    project: InProject, self_fraction: Annotated[float | None, Field(ge=0, le=1)] = None
) -> dict[str, Any]:
    """What a mixup ratio means for the next round; without one, of the ratio that suits the pairs."""
    plan = jobs.mixup_plan(project.store, self_fraction)
    return {**asdict(plan), "human_passes": plan.human_passes, "self_passes": plan.self_passes}
