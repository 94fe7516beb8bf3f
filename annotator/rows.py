"""What the store gives back: frozen values. Knows no database and no web page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from annotator.audit import Audited, Side
from annotator.launcher import Launcher
from sail.model_ref import ModelRef
from sail.records import Decision, LabelValue
from sail.settings import LoopSettings

Job = Literal["draw", "propose", "train", "export", "compare", "try"]
"""`draw` and `propose` are both propose runs: one draws seed pairs, the other has the judge rank them.
`compare` and `try` are both compare runs: one is for choosing blindly, the other for looking."""
RunEvent = Literal["queued", "withdrawn", "started", "stop_asked", "ended", "done"]
UNFINISHED: tuple[RunEvent, ...] = ("queued", "started", "stop_asked")
Order = Literal["random", "diverse", "uncertain", "disagreement"]
"""In which order open pairs come; annotator.ordering says what each means."""
Reason = Literal["colour", "composition", "details", "style", "prompt", "broken"]


@dataclass(frozen=True, kw_only=True)
class Project:
    """What a project is set to now."""

    model: ModelRef
    pipeline: str | None
    """Name of its diffusers pipeline; None where that was never seen."""
    download: bool
    """Whether a run may ask the hub for a model that is not here yet."""
    prompts: tuple[str, ...]
    settings: LoopSettings
    launcher: Launcher


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as the store knows it; what it does right now is in its folder."""

    id: int
    job: Job
    round: int
    folder: str
    """Name of the folder below `runs/`."""
    at: float
    by: str
    what: RunEvent
    """The last thing that happened to it."""
    since: float
    event_seq: int
    """Of all that happened to runs of its project, which number that was: unlike times it only grows."""
    payload: dict[str, Any]

    @property
    def unfinished(self) -> bool:
        return self.what in UNFINISHED


@dataclass(frozen=True, kw_only=True)
class ShownPair:
    """A pair as one person sees it; images by their opaque ids."""

    id: str
    prompt: str
    left: str
    right: str


@dataclass(frozen=True, kw_only=True)
class PairState:
    """A pair with what stands of its labels."""

    id: str
    ordinal: int
    prompt: str
    one: str
    two: str
    """Its candidates."""
    answered_by: frozenset[str] = frozenset()
    """People, those who skipped it included."""
    judged: bool = False
    """Somebody said more than skip."""
    tied: bool = False
    """Nobody who judged it saw a difference."""
    for_one: int = 0
    for_two: int = 0
    """How many people chose its first candidate, and how many its second."""
    withdrawn: bool = False
    """An image of it is broken, so nobody is asked about it any more."""

    @property
    def has_winner(self) -> bool:
        return self.for_one != self.for_two

    @property
    def disputed(self) -> bool:
        return self.for_one > 0 and self.for_two > 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person did with a pair, the taking back of it, or why they did it."""

    uuid: str
    pair: str
    value: LabelValue | Literal["undo", "reasons"]
    elapsed_ms: int = 0
    undoes: str | None = None
    """uuid of the label that an undo takes back."""
    of: str | None = None
    """uuid of the label that reasons belong to."""
    reasons: tuple[Reason, ...] = ()
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class PastLabel:
    """A label that stands, with its pair as it was shown."""

    uuid: str
    value: LabelValue
    pair: ShownPair
    reasons: tuple[Reason, ...] = ()
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two rounds to compare, the newer one first; None is the base model."""

    one: int
    two: int | None


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one person, or everyone, said in a match; skips are left out."""

    person: str
    wins: int
    """Comparisons in which the newer round was preferred."""
    losses: int
    ties: int


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a person decided on a self pair; None: nothing. After an undo what stood before stands again."""

    uuid: str
    self_pair: str
    decision: Decision | Side | Literal["undo"] | None
    """A side is what a person says who does not know which one the judge chose."""
    seen: str | None = None
    """uuid of the decision that the person saw, "" where they saw none; None: it was not said."""
    undoes: str | None = None
    """uuid of the decision that an undo takes back."""


@dataclass(frozen=True, kw_only=True)
class ReviewPair:
    """A self pair with what the last person to look at it decided."""

    id: str
    prompt: str
    winner: str
    loser: str
    winner_reward: float
    loser_reward: float
    margin: float
    margin_error: float
    clarity: float
    """Margin beside a typical one of its run; annotator.audit says how."""
    rank: int
    decision: Decision | None
    by: str | None
    at: float | None
    uuid: str | None
    """Of that decision."""
    bulk: str | None
    """uuid of the bulk approval that decided it."""
    in_audit: bool
    blind: bool
    """Nobody is told what the judge chose until the whole audit sample is decided."""


@dataclass(frozen=True, kw_only=True)
class Bulk:
    """Self pairs that a person approved at one stroke."""

    uuid: str
    by: str
    at: float
    threshold: float
    """Multiple of a typical margin over which they were approved."""
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Audit:
    """How far the audit of one propose run is."""

    pairs: int
    decided: int
    done: bool
    """Once decided as a whole it is over: what is said later was said with the judge's choice in view."""
    audited: tuple[Audited, ...]
    """What was said of each pair when it was done; empty before."""


@dataclass(frozen=True, kw_only=True)
class ReviewCounts:
    """How far the review of one propose run is."""

    pairs: int
    approve: int
    flip: int
    drop: int
    """How many were decided in which way, without those that are still judged blind."""
    unreviewed: int
    audit_pairs: int
    audit_decided: int
    audit_done: bool


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far the labelling of drawn pairs is."""

    drawn: int
    """Without those that were withdrawn before anybody had judged them."""
    withdrawn: int
    """Pairs that nobody is asked about any more, because an image of them is broken."""
    labelled: int
    """Pairs with any answer but a skip, from anyone."""
    skipped: int
    """Pairs that were only skipped."""
    winners: int
    """Pairs with a winner, flipped self pairs included."""
    trainable: int
    """Those of them that are not held out."""
    flipped: int
    """Self pairs that a person turned round: human pairs since then."""
    ties: int
    """Pairs between which nobody who judged them saw a difference."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """One judged pair for the exported table."""

    prompt: str
    left: str
    right: str
    """Ids of candidates."""
    left_wins: float
    """1, 0, or 0.5 for a tie."""
    both_bad: bool
    source: Literal["human", "self"]
    annotator: str
    at: float
    elapsed_ms: int | None
    round: int
    reasons: tuple[Reason, ...] = ()
    reason_text: str = ""
    """Why, where the annotator said so."""
