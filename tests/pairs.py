"""Training pairs of what a propose run drew, as somebody might have labelled them."""

from sail.records import LatentsRef, TrainingPair
from sail.runfolder import RunFolder

HELD_OUT = 3
"""Index of the prompt whose pair is held out."""


def human_pairs(proposed: RunFolder) -> list[TrainingPair]:
    """One pair a prompt: its first candidate was chosen over its second."""
    return [
        TrainingPair(
            id=f"human-{found.prompt_index}",
            prompt=found.prompt,
            winner=LatentsRef(file=str(proposed.path / found.latents), row=0),
            loser=LatentsRef(file=str(proposed.path / found.latents), row=1),
            source="human",
            held_out=found.prompt_index == HELD_OUT,
        )
        for found in proposed.candidate_sets()
    ]


def tied_pairs(proposed: RunFolder) -> list[TrainingPair]:
    """The same pairs, had nobody seen a difference."""
    return [
        pair.model_copy(update={"id": f"tie-{number}", "source": "tie", "held_out": False})
        for number, pair in enumerate(human_pairs(proposed))
    ]


def self_pairs(judged: RunFolder) -> list[TrainingPair]:
    found = {one.prompt_index: str(judged.path / one.latents) for one in judged.candidate_sets()}
    return [
        TrainingPair(
            id=f"self-{pair.prompt_index}",
            prompt=pair.prompt,
            winner=LatentsRef(file=found[pair.prompt_index], row=pair.winner),
            loser=LatentsRef(file=found[pair.prompt_index], row=pair.loser),
            source="self",
        )
        for pair in judged.self_pairs()
    ]
