"""Rounds that go another way than the loop's: a person checks some of what the model judged, as in Review, or
the mixture changes from round to round. Knows no figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.alignment.methods import changed
from sail.loop import Rounds
from sail.records import LabelValue, LatentsRef, TrainingPair
from sail.rounds import Round

Choose = Callable[[str, Path, Path], LabelValue]
"""What a person says of a pair by that name, of its left and its right image."""


class OtherRounds(Rounds):
    """Of each round's self pairs a person looks at the `count` least certain; `shares` are those of self
    pairs in the rounds that have any, and none leaves them to the settings.

    They approve a pair, turn it round, by which it is theirs and stays for the rounds after, or drop it where
    they see no difference.
    """

    def __init__(
        self, *rounds: Any, count: int = 0, choose: Choose | None = None, shares: Sequence[float] = ()
    ) -> None:
        super().__init__(*rounds)
        self._count, self._choose, self._shares = count, choose, shares
        self._turned: list[TrainingPair] = []
        self.said = {"approved": 0, "turned": 0, "dropped": 0}

    def train(self, pairs: Sequence[TrainingPair], *, parent: Round | None) -> Round:
        if parent is not None and self._shares:
            share = self._shares[len(self.done) - 1]
            self._settings = changed(self._settings, {"mixup.self_fraction": share})
        return super().train(pairs, parent=parent)

    def self_annotated(self, policy: Round) -> list[TrainingPair]:
        clearest_first = super().self_annotated(policy)
        sure = max(0, len(clearest_first) - self._count)
        approved = [pair for pair in clearest_first[sure:] if self._approves(pair)]
        return [*clearest_first[:sure], *approved, *self._turned]

    def _approves(self, pair: TrainingPair) -> bool:
        assert self._choose is not None
        said = self._choose(pair.id, image_of(pair.winner), image_of(pair.loser))
        if said == "right":
            turned = {"id": f"human-{pair.id}", "winner": pair.loser, "loser": pair.winner, "source": "human"}
            self._turned.append(pair.model_copy(update=turned))
        self.said[{"left": "approved", "right": "turned"}.get(said, "dropped")] += 1
        return said == "left"


def image_of(candidate: LatentsRef) -> Path:
    """The picture beside a candidate's latents."""
    latents = Path(candidate.file)
    return latents.with_name(f"{latents.stem}-{candidate.row}.png")
