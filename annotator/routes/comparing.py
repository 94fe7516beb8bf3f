"""Comparing: two rounds to a person, blindly; answers from them; the result when it is due or asked for."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from annotator import looks, winrate
from annotator.projects import OpenProject
from annotator.routes.common import (
    UNDO_THROUGH,
    Body,
    Id,
    InProject,
    Person,
    Sent,
    Uuid,
    named,
    receipt,
    told_apart,
)
from annotator.routes.labelling import shown
from annotator.rows import Answer, Match, Tally

AHEAD = 10
api = APIRouter()


class MatchBody(Body):
    one: int | None = None
    """A round; None is the base model."""
    two: int | None = None


class DrawBody(MatchBody):
    count: int = Field(looks.PLANNED, ge=1, le=500)


class ComparisonAnswerBody(Body):
    uuid: Uuid
    pair: Id
    value: Literal["left", "right", "tie", "skip", "undo"]
    elapsed_ms: int = Field(0, ge=0, le=86_400_000)
    undoes: Uuid | None = None


class ComparisonAnswersBody(Body):
    answers: list[Sent] = Field(min_length=1, max_length=200)
    """Each a ComparisonAnswerBody."""


@api.post("/projects/{project}/comparisons/next")
def next_comparisons(body: MatchBody, project: InProject, who: Person) -> dict[str, Any]:
    """What this person is to compare next, and the result once nothing is left that was planned."""
    store, match = project.store, looks.match_between(project.store, body.one, body.two)
    planned = looks.planned(store, match)
    answered = store.comparisons_answered(match, who)
    runs = looks.runs_of(store, match)
    return {
        "one": match.one,
        "two": match.two,
        "run": runs[-1].id if runs else None,
        "pairs": [shown(project, one) for one in store.open_comparisons(match, to=who, limit=AHEAD)],
        "past": [
            {"uuid": past.uuid, "value": past.value, "pair": shown(project, past.pair)}
            for past in store.last_comparison_answers(match, who, UNDO_THROUGH)
        ],
        "answered": answered,
        "planned": planned,
        # A figure that is seen on the way sways the answers after it, and says which side was which.
        "result": result_of(project, match, who) if 0 < planned <= answered else None,
    }


def result_of(project: OpenProject, match: Match, who: str) -> dict[str, Any]:
    """Everyone together in words, and each person on their own."""
    tallies, called = project.store.tallies(match), project.store.names()
    everyone = Tally(
        person="everyone",
        wins=sum(one.wins for one in tallies),
        losses=sum(one.losses for one in tallies),
        ties=sum(one.ties for one in tallies),
    )
    names = {"one": looks.title(match.one).lower(), "two": looks.title(match.two).lower()}
    return {
        "verdict": winrate.verdict(everyone, **names),
        "figures": winrate.figures(everyone, one=names["one"]),
        "more": winrate.answers_to_settle(winrate.win_rate(everyone)),
        "people": [
            {
                "person": "everyone" if tally is everyone else named(tally.person, called, to=who),
                "you": tally.person == who,
                "wins": tally.wins,
                "losses": tally.losses,
                "ties": tally.ties,
                "rate": winrate.win_rate(tally).model_dump(),
            }
            for tally in (*tallies, everyone)
        ],
    }


@api.post("/projects/{project}/comparisons/result")
def show_result(body: MatchBody, project: InProject, who: Person) -> dict[str, Any]:
    """The result before its time. That it was asked for is kept."""
    match = looks.match_between(project.store, body.one, body.two)
    answered = project.store.comparisons_answered(match, who)
    project.store.record_result_asked(match, answered=answered, by=who)
    return result_of(project, match, who)


@api.post("/projects/{project}/comparisons/answers")
def record_answers(body: ComparisonAnswersBody, project: InProject, who: Person) -> dict[str, Any]:
    """Keep answers, in their order. What is acknowledged is on disk; the same uuid again changes nothing."""
    sound, faulty = told_apart(body.answers, ComparisonAnswerBody)
    answers = [Answer(**answer.model_dump()) for answer in sound]
    return receipt(answers, project.store.record_comparison_answers(answers, by=who), faulty)


@api.post("/projects/{project}/comparisons/draw")
def draw_comparisons(body: DrawBody, project: InProject, who: Person) -> dict[str, int]:
    match = looks.match_between(project.store, body.one, body.two)
    run = looks.compare(project.store, match, body.count, by=who)
    project.runner.wake()
    return {"run": run.id}
