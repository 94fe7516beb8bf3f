"""A person who checks some of what the model judged, as in Review. Knows no figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sail.loop import Rounds
from sail.records import LabelValue, LatentsRef, TrainingPair
from sail.rounds import Round

Choose = Callable[[str, Path, Path], LabelValue]
"""What a person says of a pair by that name, of its left and its right image."""


class CheckedRounds(Rounds):
    """Of each round's self pairs a person looks at the least certain.

    They approve a pair, turn it round, by which it is theirs and stays for the rounds after, or drop it where
    they see no difference.
    """

    def __init__(self, *rounds: Any, count: int, choose: Choose) -> None:
        super().__init__(*rounds)
        self._count, self._choose = count, choose
        self._turned: list[TrainingPair] = []
        self.said = {"approved": 0, "turned": 0, "dropped": 0}

    def self_annotated(self, policy: Round) -> list[TrainingPair]:
        clearest_first = super().self_annotated(policy)
        sure = max(0, len(clearest_first) - self._count)
        approved = [pair for pair in clearest_first[sure:] if self._approves(pair)]
        return [*clearest_first[:sure], *approved, *self._turned]

    def _approves(self, pair: TrainingPair) -> bool:
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
