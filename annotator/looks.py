"""Runs that draw the same noise in several looks: blind comparisons of two rounds, and tries of a prompt.

Starts no process and knows no tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from annotator import jobs
from annotator.faults import FieldError
from annotator.rows import Match, Run
from annotator.store import Store
from sail.config import MAX_PROMPT_CHARS
from sail.requests import CompareRequest, Look
from sail.rounds import Round

PLANNED = 20
"""Comparisons that are drawn at once, unless a person says otherwise."""
COMPARED_FROM = 2_000_003
"""Noise seeds of comparisons begin here, so that no image comes that was seen elsewhere with its round."""
SHOWN_TRIES = 12


def title(number: int | None) -> str:
    return "base" if number is None else f"Round {number}"


# Comparisons


def match_between(store: Store, one: int | None, two: int | None) -> Match:
    """The match of these two, the newer round first. ValueError where they cannot be compared."""
    for number in (one, two):
        _round(store, number)
    if one == two:
        raise ValueError("Both sides are the same. Choose two different rounds, or a round and base.")
    older, newer = sorted((one, two), key=lambda number: -1 if number is None else number)
    assert newer is not None
    return Match(one=newer, two=older)


def compare(store: Store, match: Match, count: int, *, by: str) -> Run:
    """Draw `count` more comparisons on held-out prompts, or one more where they do not divide evenly."""
    with store.asking:
        project = store.project()
        _, held_out = jobs.split_prompts(store)
        if not held_out:
            raise ValueError(
                "No prompts are kept aside to compare on. Set how many in Setup, Prompts kept aside."
            )
        per_prompt = -(-count // len(held_out))
        earlier = sum(run.job == "compare" for run in store.runs())
        looks, adapters = _looks(store, (match.one, match.two), strength=1.0)
        request = CompareRequest(
            model=project.model,
            round=match.one,
            looks=looks,
            prompts=tuple(jobs.drawn_by_lot(store, held_out, -(-count // per_prompt))),
            per_prompt=per_prompt,
            noise_seed=project.settings.noise_seed + COMPARED_FROM + earlier,
            sampling=jobs.few_at_a_time(project.settings),
        )
        return jobs.create(store, "compare", request, adapters=adapters, by=by)


def take_in_comparisons(store: Store, run: Run, request: CompareRequest) -> None:
    match = _match_of(store, request)
    store.take_in_comparisons(run, match, per_prompt=request.per_prompt)


def runs_of(store: Store, match: Match) -> list[Run]:
    """The runs that draw for a match, oldest first; those whose folder is gone are left out."""
    found = []
    for run in store.runs():
        request = jobs.request_of(store, run) if run.job == "compare" and run.round == match.one else None
        if isinstance(request, CompareRequest) and _match_of(store, request) == match:
            found.append(run)
    return found


def planned(store: Store, match: Match) -> int:
    """Comparisons that are there, and those that the newest run has still to draw, stopped or not."""
    coming = 0
    for run in runs_of(store, match)[-1:]:
        request = jobs.request_of(store, run) if run.what != "done" else None
        if request:
            coming = (len(request.prompts) - store.count_taken_in(run)) * request.per_prompt
    return store.comparisons_drawn(match) + coming


def _match_of(store: Store, request: CompareRequest) -> Match:
    numbers = {trained.sha256: trained.round for trained in store.rounds()}
    one, two = (numbers[look.adapter] if look.adapter else None for look in request.looks)
    assert one is not None
    return Match(one=one, two=two)


# Tries


@dataclass(frozen=True, kw_only=True)
class Try:
    """A prompt as someone had it drawn."""

    run: Run
    prompt: str
    looks: list[tuple[int | None, float]]
    """Round and strength of each; None is the base model."""
    count: int
    noise_seed: int
    images: list[list[str]]
    """Ids, look by look; [] while they are being drawn."""


def try_prompt(
    store: Store,
    prompt: str,
    numbers: Sequence[int | None],
    *,
    strength: float,
    count: int,
    noise_seed: int,
    by: str,
) -> Run:
    """Draw `count` images of a prompt with each of these rounds. ValueError says what cannot be drawn."""
    with store.asking:
        looks, adapters = _looks(store, list(dict.fromkeys(numbers)), strength=strength)
        if not looks:
            raise ValueError("Nothing is chosen to draw with. Choose base or a round.")
        project = store.project()
        request = CompareRequest(
            model=project.model,
            looks=looks,
            prompts=(checked_prompt(prompt),),
            per_prompt=count,
            noise_seed=noise_seed,
            sampling=jobs.few_at_a_time(project.settings),
        )
        if any(run.job == "try" and run.unfinished and run.by == by for run in store.runs()):
            raise ValueError("Your last prompt is not drawn yet. Wait for it, or stop it first.")
        return jobs.create(store, "try", request, adapters=adapters, by=by, each=True)


def checked_prompt(text: str) -> str:
    """One line without space around it. FieldError where it is empty or too long."""
    prompt = " ".join(text.split())
    if not prompt:
        raise FieldError("prompt", "There is no prompt. Write what the images should show.")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise FieldError(
            "prompt",
            f"The prompt has {len(prompt):,} characters; "
            f"a prompt has at most {MAX_PROMPT_CHARS:,}. Shorten it.",
        )
    return prompt


def tries(store: Store) -> list[Try]:
    """The last tries, the newest first; those whose folder is gone are left out."""
    numbers = {trained.sha256: trained.round for trained in store.rounds()}
    found: list[Try] = []
    for run in reversed([run for run in store.runs() if run.job == "try"]):
        request = jobs.request_of(store, run)
        if not isinstance(request, CompareRequest):
            continue
        images, per_look = store.images_of(run), request.per_prompt
        found.append(
            Try(
                run=run,
                prompt=request.prompts[0],
                looks=[(numbers.get(look.adapter or ""), look.strength) for look in request.looks],
                count=per_look,
                noise_seed=request.noise_seed,
                images=[images[at : at + per_look] for at in range(0, len(images), per_look)],
            )
        )
        if len(found) == SHOWN_TRIES:
            break
    return found


# Both


def _looks(
    store: Store, numbers: Sequence[int | None], *, strength: float
) -> tuple[tuple[Look, ...], dict[str, Path]]:
    """Looks of these rounds, and where their adapters lie."""
    trained = [_round(store, number) for number in numbers]
    looks = tuple(Look(adapter=one.sha256, strength=strength) if one else Look() for one in trained)
    return looks, {one.sha256: Path(one.adapter) for one in trained if one}


def _round(store: Store, number: int | None) -> Round | None:
    found = next((one for one in store.rounds() if one.round == number), None)
    if number is not None and found is None:
        raise ValueError(f"Round {number} is not trained. Reload the page and choose another one.")
    return found
