"""Subjects, styles, backgrounds, sizes, and the captions that name them. Knows no pixels and no tensors."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

# Name in captions -> the label under which emojibase lists it.
SUBJECTS: dict[str, str] = {
    "fox": "fox",
    "panda": "panda",
    "frog": "frog",
    "penguin": "penguin",
    "owl": "owl",
    "turtle": "turtle",
    "butterfly": "butterfly",
    "ladybug": "lady beetle",
    "octopus": "octopus",
    "snail": "snail",
    "crab": "crab",
    "dinosaur": "sauropod",
    "elephant": "elephant",
    "bee": "honeybee",
    "duck": "duck",
    "flamingo": "flamingo",
    "pizza": "pizza",
    "hamburger": "hamburger",
    "banana": "banana",
    "apple": "red apple",
    "strawberry": "strawberry",
    "watermelon": "watermelon",
    "carrot": "carrot",
    "donut": "doughnut",
    "cupcake": "cupcake",
    "pineapple": "pineapple",
    "avocado": "avocado",
    "cactus": "cactus",
    "sunflower": "sunflower",
    "mushroom": "mushroom",
    "palm tree": "palm tree",
    "rocket": "rocket",
    "car": "automobile",
    "guitar": "guitar",
    "umbrella": "umbrella",
    "house": "house",
    "crown": "crown",
    "anchor": "anchor",
    "sailboat": "sailboat",
    "snowman": "snowman without snow",
}
STYLES = ("3d", "flat", "cartoon")
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (245, 146, 40),
    "yellow": (250, 222, 75),
    "green": (66, 168, 84),
    "blue": (52, 108, 214),
    "purple": (136, 72, 186),
    "white": (242, 242, 242),
    "black": (24, 24, 26),
}
SIZES = ("small", "big")

CLASSES: dict[str, tuple[str, ...]] = {
    "subject": tuple(SUBJECTS),
    "style": STYLES,
    "background": tuple(BACKGROUNDS),
    "size": SIZES,
}


class Attributes(NamedTuple):
    """Class numbers of one scene, in the order of CLASSES."""

    subject: int
    style: int
    background: int
    size: int


def combinations() -> list[Attributes]:
    """Every subject, style, background and size together, in a fixed order."""
    return [Attributes(*numbers) for numbers in product(*(range(len(names)) for names in CLASSES.values()))]


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def caption(subject: str, *, style: str = "", background: str = "", size: str = "") -> str:
    """A caption that names the attributes given: "a big 3d fox on a blue background"."""
    thing = " ".join(word for word in (size, style, subject) if word)
    place = f" on {article(background)} {background} background" if background else ""
    return f"{article(thing)} {thing}{place}"


def captions() -> Iterator[tuple[tuple[int, int, int, int], str]]:
    """Every caption with its class numbers; -1 stands for an attribute left out."""
    for subject, (style, background, size) in product(
        range(len(SUBJECTS)),
        product(*(range(-1, len(CLASSES[name])) for name in ("style", "background", "size"))),
    ):
        text = caption(
            CLASSES["subject"][subject],
            style=STYLES[style] if style >= 0 else "",
            background=CLASSES["background"][background] if background >= 0 else "",
            size=SIZES[size] if size >= 0 else "",
        )
        yield (subject, style, background, size), text
