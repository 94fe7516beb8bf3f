"""What a run is asked to do: run folders made from what the store holds. Starts no process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from annotator.faults import FieldError
from annotator.rows import Job, Run
from annotator.store import Displaced, Store
from annotator.store.files import RUN_FOLDER
from sail import mixup, rounds
from sail.config import Sampling
from sail.mixup import MixupPlan
from sail.records import JudgedPair, TrainingPair
from sail.requests import ProposeRequest, Request, TrainRequest
from sail.rounds import NextStep, Round
from sail.runfolder import RunFolder
from sail.settings import LoopSettings

DRAW_CHUNK = 8
SIDES_OF = 16
"""Pixels: sides that are multiples of it suit every family of models."""
MAX_DOUBTED = 20
MAX_UNJUDGED = 64
"""Open pairs that a train run's judge is given where people want the uncertain ones first."""


def split_prompts(store: Store) -> tuple[list[str], list[str]]:
    """(prompts to learn from, held-out prompts), after what was drawn to learn from already.

    The split hangs on the list, which people edit. A prompt that was learned from is not held out again; in
    its place comes one that would be drawn last. Only where all were learned from, the split stays.
    """
    project = store.project()
    learn, held_out = rounds.split_prompts(project.prompts, project.settings)
    used = set(store.used_prompts(("draw", "propose")))
    clean = [prompt for prompt in held_out if prompt not in used]
    missing, by_lot = len(held_out) - len(clean), drawn_by_lot(store, learn, len(learn))
    clean += [prompt for prompt in reversed(by_lot) if prompt not in used][:missing]
    if not clean:
        return learn, held_out
    # One prompt alone is both.
    return [prompt for prompt in learn if prompt not in clean] or learn, clean


def draw(store: Store, count: int, *, by: str) -> Run:
    """Draw `count` more pairs for people to label, on prompts not used so far where there are any.

    As many of each prompt, and so a few more than `count` where there are fewer prompts than pairs.
    """
    with store.asking:
        project = store.project()
        learn, _ = split_prompts(store)
        prompts = drawn_by_lot(store, learn, count)
        each = -(-count // len(prompts))
        earlier = sum(run.job == "draw" for run in store.runs())
        request = rounds.seed_request(
            project.settings, project.model, prompts[: -(-count // each)], pairs_per_prompt=each
        )
        request = request.model_copy(
            update={
                # Prompts come back when they run out; another noise seed then gives other images.
                "noise_seed": request.noise_seed + 1_000 * earlier,
                "sampling": few_at_a_time(project.settings),
            }
        )
        return create(store, "draw", request, by=by)


def drawn_by_lot(store: Store, prompts: Sequence[str], count: int) -> list[str]:
    """`count` of the prompts, those not used yet first."""
    return rounds.take_prompts(prompts, store.used_prompts(), count, lot=store.project().settings.noise_seed)


def few_at_a_time(settings: LoopSettings) -> Sampling:
    """A person waits for the first images, so few are drawn at a time."""
    return settings.sampling.model_copy(update={"chunk": min(settings.sampling.chunk, DRAW_CHUNK)})


def propose(store: Store, *, by: str) -> Run:
    """Have the current round's policy judge new candidates, for the round after the last."""
    with store.asking:
        request = propose_request(store)
        named = {request.adapter, request.reference_adapter}
        adapters = {
            round_.sha256: Path(round_.adapter) for round_ in store.rounds() if round_.sha256 in named
        }
        return create(store, "propose", request, adapters=adapters, by=by)


def propose_request(store: Store) -> ProposeRequest:
    """What `propose` would ask for now."""
    project, trained = store.project(), store.rounds()
    policy = store.current_round()
    if policy is None:
        raise ValueError(
            "No trained round is current, so there is no judge. Train a round, or make one current in Rounds."
        )
    parent = next((round_ for round_ in trained if round_.round == policy.parent), None)
    learn, _ = split_prompts(store)
    number = next_round(store)
    prompts = drawn_by_lot(store, learn, project.settings.prompts_in(number))
    # Margins are in nats at the beta of the judge, whatever the next training is to have.
    settings = project.settings.changed({"loss": {"beta": _beta_of(store, policy)}})
    return rounds.propose_request(
        settings, project.model, prompts, number=number, policy=policy, parent=parent
    )


def _beta_of(store: Store, policy: Round) -> float:
    """That it was trained with; where its folder is gone, as is then said elsewhere, that of the settings."""
    asked = request_of(store, store.run_of(policy)) or store.project().settings
    return float(asked.loss.beta)


def request_of(store: Store, run: Run) -> Any:
    """What a run was asked to do; None where its folder is gone or cannot be read or understood."""
    try:
        return RunFolder(store.run_folder(run)).request(extra="ignore")
    except (ValueError, OSError):
        return None


def doubted_pairs(store: Store, person: str) -> list[str]:
    """Pairs in which the current judge clearly contradicts this person, and most others, the clearest first.

    Only pairs that it learned from: the held-out ones measure it, and to ask again wherever they count
    against it would flatter it. A pair that the person has answered again since is left out.
    """
    current = store.current_round()
    if current is None:
        return []
    # Trainings of an earlier version do not say so: of them nothing is asked again.
    newest = store.training_facts()[current.round].get("newest_label", 0)
    return store.decided_up_to(newest, contradicted_pairs(store), by=person)[:MAX_DOUBTED]


def contradicted_pairs(store: Store) -> list[str]:
    """Pairs in which the current judge contradicts people, the clearest first; none that measure it."""
    judged = _said_by_judge(store, RunFolder.judged_pairs)
    against = [pair for pair in judged if not pair.held_out and pair.margin < -pair.margin_error]
    drawn = store.states_of(pair.id for pair in against)
    shown = [pair for pair in against if pair.id in drawn and not drawn[pair.id].withdrawn]
    return [pair.id for pair in sorted(shown, key=lambda pair: pair.margin)]


def open_margins(store: Store) -> dict[str, float]:
    """Margin of the current judge for open pairs, by pair, where it was asked: 0 is a coin's toss."""
    return {pair.id: pair.margin for pair in _said_by_judge(store, RunFolder.judged_open)}


def _said_by_judge(store: Store, read: Callable[[RunFolder], list[JudgedPair]]) -> list[JudgedPair]:
    """Nothing where no round is current, and where it cannot be read: people label all the same."""
    current = store.current_round()
    try:
        return read(RunFolder(store.run_folder(store.run_of(current)))) if current else []
    except (ValueError, OSError):
        return []


def train(store: Store, *, self_fraction: float | None = None, by: str) -> Run:
    """Train the next round on the human pairs and, from round 1 on, the self pairs proposed for it.

    `self_fraction` is what somebody chose, and a setting from then on; None is what suits the pairs.
    Pairs whose files are gone are left out; the run's first event says so, as `left_out`.
    """
    with store.asking:
        # First: one that ends meanwhile would make another round the current one.
        _require_none_at_it(store, "train")
        newest_label = store.newest_label()
        (pairs, left_out), settings = training_pairs(store), store.project().settings
        try:
            rounds.require_enough_pairs(rounds.trainable(pairs), settings)
        except ValueError as error:
            raise ValueError(f"{error} {left_out}".strip()) from error
        request, parent = train_request(store, pairs, self_fraction=self_fraction), store.current_round()
        adapters = {parent.sha256: Path(parent.adapter)} if parent else {}
        unjudged = store.unjudged_pairs(MAX_UNJUDGED) if store.order() == "uncertain" else []
        asked = [*pairs, *_without(unjudged, _lost_files(unjudged))]
        facts = {
            **_reviewed(store),
            "newest_label": newest_label,
            **({"left_out": left_out} if left_out else {}),
        }
        run = create(store, "train", request, pairs=asked, adapters=adapters, by=by, facts=facts)
        # Once it is asked for: a training that is refused changes no setting.
        if self_fraction is not None and self_fraction != settings.mixup.self_fraction:
            change_settings(store, {"mixup": {"self_fraction": self_fraction}}, by=by)
        return run


def train_request(
    store: Store, pairs: Sequence[TrainingPair], *, self_fraction: float | None = None
) -> TrainRequest:
    """What `train` would ask for now."""
    project = store.project()
    _, held_out_prompts = split_prompts(store)
    return rounds.train_request(
        project.settings,
        project.model,
        number=next_round(store),
        parent=store.current_round(),
        held_out_prompts=held_out_prompts,
        pairs=pairs,
        self_fraction=self_fraction,
    )


def require_resumable(store: Store, run: Run) -> None:
    """ValueError where a train run would learn from what is held out now, or in another LoRA's shape."""
    folder, settings = RunFolder(store.run_folder(run)), store.project().settings
    now = {pair.id: pair.held_out for pair in store.human_pairs()}
    if any(pair.held_out != now.get(pair.id, pair.held_out) for pair in folder.pairs()):
        raise ValueError("Other pairs are kept aside now than when it began. Train the round anew.")
    request = folder.request(extra="ignore")
    if request.parent_adapter is None and request.lora != settings.lora:
        raise ValueError(
            "LoRA settings were changed since it began. Train the round anew, or set them back in Setup."
        )


def require_audit(store: Store) -> None:
    """ValueError where the next round would learn from self pairs whose audit sample is not decided."""
    proposed = proposal(store)
    audit = store.audit(proposed) if proposed else None
    if audit and not audit.done:
        raise ValueError(
            f"{audit.pairs - audit.decided} of {audit.pairs} audit pairs are not decided. "
            "Decide them in Review, or train without the audit there."
        )


def _reviewed(store: Store) -> dict[str, Any]:
    """How far the review was when training was asked for; empty where there was nothing to review."""
    proposed = proposal(store)
    if proposed is None:
        return {}
    audit = store.audit(proposed)
    wrong = sum(one.decision != "approve" for one in audit.audited)
    return {
        "audit": {"pairs": audit.pairs, "decided": audit.decided, "done": audit.done, "wrong": wrong},
        "without_audit": not audit.done,
    }


def export(store: Store, *, merged: bool = False, by: str) -> Run:
    """Write the current round's adapter for other tools; with `merged` the whole pipeline as well."""
    policy = store.current_round()
    if policy is None:
        raise ValueError(
            "There is nothing to export: no trained round is current. "
            "Train a round, or make one current in Rounds."
        )
    project, title = store.project(), f"{store.name}, round {policy.round}"
    model = project.model
    request = rounds.export_request(project.settings, model, policy, title=title, merged=merged)
    return create(
        store,
        "export",
        request,
        adapters={policy.sha256: Path(policy.adapter)},
        by=by,
        # For the adapter alone nobody reads it; but of a single file the model card names what does.
        needs_model=merged or model.source.endswith(".safetensors"),
    )


def next_round(store: Store) -> int:
    trained = store.rounds()
    return trained[-1].round + 1 if trained else 0


def proposal(store: Store) -> Run | None:
    """The propose run whose self pairs are ready for the next round, judged by the current round's policy."""
    number, policy = next_round(store), store.current_round()
    ready = [run for run in store.runs() if (run.job, run.round, run.what) == ("propose", number, "done")]
    # A person may have gone back to another round since: nobody learns from a judge that is not current.
    own = [run for run in ready if policy and _is_judged_by(policy, request_of(store, run))]
    return own[-1] if own else None


def _is_judged_by(policy: Round, request: ProposeRequest | None) -> bool:
    return request is not None and request.adapter == policy.sha256


def training_pairs(store: Store) -> tuple[list[TrainingPair], str]:
    """What the next round is trained and measured on, with the ties that its settings hold; and why others
    are left out, "" where none are.

    Those are pairs whose files are gone: one lost file must not end all training.
    """
    proposed, holds = proposal(store), store.project().settings.loss.hold_ties > 0
    judged = [
        *store.human_pairs(),
        *(store.tie_pairs() if holds else ()),
        *(store.self_pairs(proposed) if proposed else ()),
    ]
    lost = _lost_files(judged)
    pairs = _without(judged, lost)
    return pairs, _left_out(store, len(judged) - len(pairs), lost)


def _lost_files(pairs: Iterable[TrainingPair]) -> set[str]:
    return _missing({ref.file for pair in pairs for ref in (pair.winner, pair.loser)})


def _missing(files: Set[str]) -> set[str]:
    return {file for file in files if not os.path.exists(file)}


def _without(pairs: Iterable[TrainingPair], lost: Set[str]) -> list[TrainingPair]:
    return [pair for pair in pairs if lost.isdisjoint((pair.winner.file, pair.loser.file))]


def _left_out(store: Store, pairs: int, lost: Set[str]) -> str:
    """Why so many judged pairs are not learned from; empty where all are."""
    if not lost:
        return ""
    first, more = os.path.relpath(min(lost), store.folder), len(lost) - 1
    what = "1 judged pair is" if pairs == 1 else f"{pairs} judged pairs are"
    files = f"{first} is" if not more else f"{first} and {more} more {'file' if more == 1 else 'files'} are"
    return f"{what} left out: {files} gone. Labels stay, and count again where files come back."


def next_step(store: Store) -> NextStep:
    """Where the loop stands."""
    proposed, counts = proposal(store), store.counts()
    return rounds.next_step(
        store.project().settings,
        trainable_pairs=counts.trainable,
        drawn_pairs=counts.drawn,
        rounds=store.rounds(),
        policy=store.current_round(),
        proposed=proposed.round if proposed else None,
    )


def mixup_plan(store: Store, self_fraction: float | None = None) -> MixupPlan:
    """What a mixup ratio, or the one that suits the pairs, means for the next round before it is trained."""
    settings, proposed = store.project().settings, proposal(store)
    found = store.files_to_learn_from(proposed)
    lost = _missing({file for pairs in found.values() for both in pairs for file in both})
    human, own = (sum(lost.isdisjoint(both) for both in found[side]) for side in ("human", "self"))
    # Each would say what the judge chose to whoever judged it blind.
    blind = store.flips_untold(proposed) if proposed else 0
    human, own = human - blind, own + blind
    if self_fraction is None:
        suited = settings.mixup.self_fraction, settings.mixup.most_times
        self_fraction = mixup.suited_fraction(*suited, human_pairs=human, self_pairs=own)
    return mixup.plan(
        self_fraction,
        human_pairs=human,
        self_pairs=own,
        steps=settings.optimisation.steps,
        batch_pairs=settings.optimisation.batch_pairs,
    )


def require_size(settings: LoopSettings) -> None:
    """FieldError where images of this size would not suit every family of models."""
    for side in settings.sampling.size or ():
        if side % SIDES_OF:
            raise FieldError(
                "sampling.size", f"Height and width must be multiples of {SIDES_OF}, got {side}."
            )


def change_settings(store: Store, changes: Mapping[str, Any], *, by: str) -> LoopSettings:
    """Settings from now on. ValueError where what was trained already rests on the old ones."""
    # One after the other: of two people who save at once none takes back what the other changed.
    with store.asking:
        return _change_settings(store, changes, by=by)


def _change_settings(store: Store, changes: Mapping[str, Any], *, by: str) -> LoopSettings:
    before = store.project().settings
    settings = before.changed(changes)
    training = any(run.job == "train" and run.unfinished for run in store.runs())
    if settings.held_out_every != before.held_out_every and (training or store.rounds()):
        raise FieldError(
            "held_out_every",
            f"One pair out of every {before.held_out_every} is kept aside, and the rest was trained on. "
            "Another split would measure the judge on what it learned. Make a new project for it.",
        )
    if settings.lora != before.lora and (training or _relied_on(store)):
        raise FieldError(
            "lora.rank",
            "Rounds have this rank and the loop may go on from them, "
            "so LoRA settings stay as they are. Make a new project for others.",
        )
    if settings.sampling.size != before.sampling.size:
        require_size(settings)
        if any(run.job == "draw" and run.unfinished for run in store.runs()):
            raise FieldError(
                "sampling.size",
                "Pairs are being drawn, or will be. Stop that in Rounds, or take it out of the queue there.",
            )
        if store.used_prompts():
            raise FieldError(
                "sampling.size",
                "Images of another size are drawn already, and pairs of two sizes cannot be learned from "
                "together. Make a new project for it.",
            )
    store.set_settings(settings, by=by)
    if settings.keep_self_pairs != before.keep_self_pairs and (proposed := proposal(store)):
        # The sample is another one now, and all of it may be decided.
        store.end_audit(proposed, by=by)
    return settings


def _relied_on(store: Store) -> bool:
    """Whether the loop goes on from a round, or may by the gate's leave."""
    return store.current_round() is not None or any(round_.accepted for round_ in store.rounds())


def create(
    store: Store,
    job: Job,
    request: Request,
    *,
    pairs: Iterable[TrainingPair] = (),
    adapters: Mapping[str, Path] | None = None,
    by: str,
    facts: Mapping[str, Any] | None = None,
    each: bool = False,
    needs_model: bool = True,
) -> Run:
    """Publish the run folder, then record the run: a crash in between leaves a folder nobody looks at.

    One unfinished run of a job; with `each`, one for each person. `facts` go into the run's first event.
    """
    with store.asking:
        _require_none_at_it(store, job, by=by if each else None)
        if needs_model:
            _require_model(store)
        number = _free_number(store)
        folder = f"{number:04d}-{request.kind}"
        made = RunFolder.create(store.folder / "runs" / folder, request, pairs=pairs, adapters=adapters)
        try:
            return store.record_run(
                number, job, round_number=request.round, folder=folder, by=by, facts=facts
            )
        except Displaced:
            # The project was moved away, and there the run may be on record.
            raise
        except Exception:
            # Every request on a full disk would leave one.
            if store.next_run_id() <= number:
                shutil.rmtree(made.path, ignore_errors=True)
            raise


def _require_none_at_it(store: Store, job: Job, *, by: str | None = None) -> None:
    """ValueError where a run of this job, with `by` of this person, waits or is at work."""
    for run in store.runs():
        if run.unfinished and run.job == job and by in (None, run.by):
            raise ValueError(f"Run {run.id} does that already. Wait for it, or stop it in Rounds.")


def make_current(store: Store, number: int | None, *, by: str) -> None:
    """Go on from a round, accepted or not, or from the base model: None."""
    # Not while somebody asks for a run, which is of one round from its pairs to its parent.
    with store.asking:
        store.make_current(number, by=by)


def _require_model(store: Store) -> None:
    try:
        store.project().model.checked()
    except ValueError as error:
        raise ValueError(f"{error} If it was moved, say in Setup where it is now.") from error


def _free_number(store: Store) -> int:
    runs = store.folder / "runs"
    if not runs.exists():
        runs.mkdir()
    found = (RUN_FOLDER.fullmatch(path.name) for path in runs.iterdir())
    return max([store.next_run_id() - 1, *(int(match[1]) for match in found if match)]) + 1
