"""Write the prompt files: to label, held out from that, and with every attribute named. Knows words only."""

import random
from pathlib import Path

from .files import publish_text
from .words import CLASSES, STYLES, SUBJECTS, captions

ALL_NAMED_PER_SUBJECT = 5

Combination = tuple[bool, bool, bool]
"""Whether style, background and size are named."""
STARTER: dict[Combination, int] = {
    (False, False, True): 1,
    (True, False, False): 2,
    (True, False, True): 3,
    (False, True, False): 3,
    (False, True, True): 3,
}
"""Prompts a subject. Each leaves style or background open: where both are named, two images of a prompt
hardly differ, and a person can only say that they are alike."""
HELD_OUT: dict[Combination, int] = {
    (False, False, False): 1,
    (False, False, True): 1,
    (True, False, False): 1,
    (True, False, True): 1,
    (False, True, False): 1,
    (False, True, True): 1,
}

Named = dict[Combination, list[str]]
"""What is named -> captions of one subject."""


def by_what_is_named(subject: int) -> Named:
    found: Named = {}
    for (number, style, background, size), text in captions():
        if number == subject:
            found.setdefault((style >= 0, background >= 0, size >= 0), []).append(text)
    return found


def draw_prompts(
    named: Named, counts: dict[Combination, int], *, without: set[str], rng: random.Random
) -> list[str]:
    """So many captions of each combination, none of those in `without`."""
    free = {
        combination: [text for text in named[combination] if text not in without] for combination in counts
    }
    return [text for combination, count in counts.items() for text in rng.sample(free[combination], count)]


def all_named(subject: int, count: int, rng: random.Random) -> list[str]:
    """Captions that name everything; over all subjects styles, backgrounds and sizes come equally often."""
    texts = {numbers: text for numbers, text in captions() if numbers[0] == subject and -1 not in numbers}
    turns = range(subject * count, (subject + 1) * count)
    num_backgrounds = len(CLASSES["background"])
    drawn = [texts[subject, turn % len(STYLES), turn % num_backgrounds, rng.randrange(2)] for turn in turns]
    assert len(set(drawn)) == count
    return drawn


def write_prompts(folder: Path) -> None:
    """Write starter.txt, heldout.txt and all_attributes.txt; no prompt stands in two of them."""
    rng = random.Random("prompts")
    files: dict[str, list[str]] = {"starter": [], "heldout": [], "all_attributes": []}
    for subject in range(len(SUBJECTS)):
        named = by_what_is_named(subject)
        full = all_named(subject, ALL_NAMED_PER_SUBJECT, rng)
        starter = draw_prompts(named, STARTER, without=set(full), rng=rng)
        held_out = draw_prompts(named, HELD_OUT, without={*full, *starter}, rng=rng)
        for prompts, more in zip(files.values(), (starter, held_out, full), strict=True):
            prompts += more
    for name, prompts in files.items():
        rng.shuffle(prompts)
        publish_text(folder / f"{name}.txt", "\n".join(prompts) + "\n")
