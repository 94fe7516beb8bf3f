"""Compose sprites into 64-pixel scenes with known attributes. Knows no captions and no models."""

# S scenes, J jitters, M combinations of attributes; S = J * M, jitter-major

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .art import ART_PX, SPRITE_PX
from .files import publish_array
from .words import BACKGROUNDS, SIZES, combinations

SCENE_PX = 64
NUM_JITTERS = 16
HELD_OUT_JITTERS = 2
"""The last jitters of every combination are kept from the readers, to measure them."""
DRAWN_PX = {"small": 27, "big": 51}
"""Longer side of the drawing in the scene."""
SHADE = 7.0
"""Standard deviation of a background's colour, of 255."""

Array = np.ndarray[Any, Any]


class Scenes(NamedTuple):
    """images_SHWC uint8, attributes_S4 class numbers in the order of words.CLASSES."""

    images_SHWC: Array
    attributes_S4: Array


def scaled_sprites(sprites: Array) -> dict[tuple[int, int, int], Array]:
    """(subject, style, drawn px) -> premultiplied float RGBA at the size it has in a scene."""
    scaled: dict[tuple[int, int, int], Array] = {}
    for i, j in np.ndindex(sprites.shape[:2]):
        image = Image.fromarray(sprites[i, j]).convert("RGBa")
        for drawn_px in DRAWN_PX.values():
            side = round(SPRITE_PX * drawn_px / ART_PX)
            resized = image.resize((side, side), Image.Resampling.LANCZOS)
            scaled[i, j, drawn_px] = np.asarray(resized, np.float32)
    return scaled


def lay_in_the_middle(canvas: Array, sprite: Array) -> None:
    """Lay a premultiplied sprite over the canvas, in place; what hangs over the edge is cut."""
    side = sprite.shape[0]
    first = SCENE_PX // 2 - side // 2
    start, stop = max(first, 0), min(first + side, SCENE_PX)
    part = sprite[start - first : stop - first, start - first : stop - first]
    within = slice(start, stop)
    canvas[within, within] = part[..., :3] + (1 - part[..., 3:] / 255) * canvas[within, within]


def compose(sprites: Array, *, num_jitters: int, noise_seed: int) -> Scenes:
    """Every combination of attributes, `num_jitters` times with another shade."""
    draw = np.random.default_rng(noise_seed)
    scaled = scaled_sprites(sprites)
    colours = np.array(list(BACKGROUNDS.values()), np.float32)
    attributes = combinations() * num_jitters
    images = np.empty((len(attributes), SCENE_PX, SCENE_PX, 3), np.uint8)
    for scene, it in enumerate(attributes):
        canvas = np.empty((SCENE_PX, SCENE_PX, 3), np.float32)
        canvas[:] = colours[it.background] + draw.normal(0, SHADE, 3)
        # Always in the middle: with free places even the mean picture of a subject is a blur, and the
        # denoiser sees no use in the subject's name for its first 60,000 images.
        lay_in_the_middle(canvas, scaled[it.subject, it.style, DRAWN_PX[SIZES[it.size]]])
        images[scene] = canvas.clip(0, 255).round()
    return Scenes(images, np.array(attributes, np.int64))


def build_scenes(work: Path) -> None:
    """Write `work/scenes.npy` and `work/attributes.npy`."""
    if (work / "attributes.npy").exists():
        return
    scenes = compose(np.load(work / "sprites.npy"), num_jitters=NUM_JITTERS, noise_seed=0)
    publish_array(work / "scenes.npy", scenes.images_SHWC)
    publish_array(work / "attributes.npy", scenes.attributes_S4)


def load_scenes(work: Path) -> Scenes:
    return Scenes(np.load(work / "scenes.npy", mmap_mode="r"), np.load(work / "attributes.npy"))


def halves(attributes_S4: Array) -> tuple[Array, Array, Array]:
    """Scene numbers for two readers, and for neither: disjoint, each balanced over all attributes."""
    jitter_S = np.arange(len(attributes_S4)) // len(combinations())
    held_out_S = jitter_S >= jitter_S.max() + 1 - HELD_OUT_JITTERS
    odd_S = (attributes_S4.sum(1) + jitter_S) % 2 == 1
    even, odd = ~held_out_S & ~odd_S, ~held_out_S & odd_S
    return np.flatnonzero(even), np.flatnonzero(odd), np.flatnonzero(held_out_S)
