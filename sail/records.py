"""What travels between the algorithm and the app. Knows no tensor, no file layout, no database."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

LabelValue = Literal["left", "right", "tie", "both_bad", "skip"]
Source = Literal["human", "self", "tie", "open"]
"""Who judged a pair. In no order are winner and loser of a `tie`, between which people saw no difference,
and of an `open` one, which nobody has judged yet."""
Decision = Literal["approve", "flip", "drop"]


class Record(BaseModel):
    """A frozen value; a key it does not know is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LatentsRef(Record):
    """Where one candidate's final latents lie: a safetensors file and the row of its tensor `latents`."""

    file: str
    row: int = Field(ge=0)


class Candidate(Record):
    """One generated image of a prompt."""

    index: int = Field(ge=0)
    image: str
    """Path relative to the run folder."""


class CandidateSet(Record):
    """All candidates of one prompt, as a propose run publishes them: candidates/00012.json."""

    prompt_index: int = Field(ge=0)
    prompt: str
    latents: str
    """A safetensors file relative to the run folder; row i of `latents` belongs to candidate i."""
    candidates: tuple[Candidate, ...]
    to_show: tuple[tuple[int, int], ...] = ()
    """Indices of candidates that are to be shown to people as pairs."""

    @model_validator(mode="after")
    def _shows_what_it_has(self) -> CandidateSet:
        has = range(len(self.candidates))
        unknown = [index for pair in self.to_show for index in pair if index not in has]
        if unknown:
            raise ValueError(f"Candidate {unknown[0]} is to be shown, and there are {len(has)}.")
        return self


class SelfPair(Record):
    """A pair that the model annotated: two of its candidates of one prompt, mostly best and worst."""

    prompt_index: int
    prompt: str
    winner: int
    loser: int
    """Indices of candidates within the prompt."""
    winner_reward: float
    loser_reward: float
    margin: float
    """Winner's implicit reward minus loser's, in nats."""
    margin_error: float
    """Standard error of the margin over the draws, in nats."""
    rank: int = Field(ge=0)
    """0 is the clearest: pairs are ordered by margin, falling."""


class TrainingPair(Record):
    """A judged pair, ready to be learned from or to be held out; a tied one, to stay as it was on it; or an
    open one, for the judge to look at."""

    id: str
    prompt: str
    winner: LatentsRef
    loser: LatentsRef
    source: Source
    held_out: bool = False
    """Never trained on; the judge is measured on it."""


class JudgedPair(Record):
    """What a trained judge says of a human pair: a negative margin contradicts the people."""

    id: str
    margin: float
    """Implicit reward of what people chose minus that of the other, in nats."""
    margin_error: float
    held_out: bool
    """The judge never learned from it."""


Z_95 = 1.959963984540054
"""Standard errors to either side of a 95 % interval."""


def human_margin(judged: Iterable[JudgedPair]) -> float | None:
    """Median size of the margins of the pairs that the judge learned from, as far as it was asked about them:
    how clear what people see is to it. None where there is none.
    """
    sizes = [abs(pair.margin) for pair in judged if not pair.held_out]
    return median(sizes) if sizes else None


FEW = 20
"""Of fewer than these a share is told as a count: "0 % of 1" sounds like a verdict."""


class Interval(Record):
    """A share of n, with a 95 % Wilson interval. All three are None where n is 0."""

    value: float | None
    low: float | None
    high: float | None
    n: int = Field(ge=0)

    @classmethod
    def of(cls, successes: float, n: int) -> Interval:
        """successes / n with Wilson's interval (Wilson 1927); what is half a success may count so.

        In closed form: the library that has it takes over a second to load, before a waiting person.
        """
        if n == 0:
            return cls(value=None, low=None, high=None, n=0)
        share, z = successes / n, Z_95
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return cls(value=share, low=max(0.0, middle - half), high=min(1.0, middle + half), n=n)

    def in_words(self) -> str | None:
        """Such as "9 of 10 (95 % interval 60 to 98 %)"; from twenty on in per cent."""
        if self.value is None or self.low is None or self.high is None:
            return None
        found = (
            f"{round(2 * self.value * self.n) / 2:g}"
            if self.n < FEW
            else f"{self.value:.0%}".replace("%", " %")
        )
        return f"{found} of {self.n} (95 % interval {100 * self.low:.0f} to {100 * self.high:.0f} %)"
