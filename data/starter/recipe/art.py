"""Fetch the emoji artwork and cut it into sprites. Knows styles and subjects, not scenes."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import resvg_py
from PIL import Image, ImageFilter

from .files import publish_array
from .words import STYLES, SUBJECTS

ART_PX = 112
"""Longer side of the drawing inside its sprite."""
MARGIN_PX = 16
"""Room around the drawing for an outline or a shadow."""
SPRITE_PX = ART_PX + 2 * MARGIN_PX
OUTLINE_PX = 5


class Package(NamedTuple):
    """One pinned npm package: its tarball's name and digest, and how it is credited."""

    name: str
    version: str
    sha256: str
    licence: str
    credit: str

    @property
    def tarball(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PACKAGES: dict[str, Package] = {
    "3d": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT",
        "Fluent Emoji, copyright (c) Microsoft Corporation",
    ),
    "flat": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
        "Twemoji, copyright (c) Twitter, Inc and other contributors",
    ),
    "cartoon": Package(
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Noto Emoji, copyright (c) Google LLC",
    ),
    "words": Package(
        "emojibase-data",
        "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        "MIT",
        "emojibase-data, copyright (c) Miles Johnson",
    ),
}


def fetch(package: Package, folder: Path) -> Path:
    """The package's tarball in `folder`, packed by npm where it is missing, its digest checked."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / package.tarball
    if not path.exists():
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise ValueError(
            f"{path.name} has sha256 {digest}, expected {package.sha256}. Delete it and run again."
        )
    return path


def members(tarball: Path) -> dict[str, bytes]:
    """Every file of a package by its path. Read once from end to end: a gzip cannot be sought."""
    found = {}
    with tarfile.open(tarball) as archive:
        for entry in archive:
            if file := archive.extractfile(entry):
                found[entry.name.removeprefix("package/")] = file.read()
    return found


def plain(hexcode: str) -> str:
    """A hexcode as all packages would write it: lower case, without variation selectors."""
    return hexcode.lower().replace("-fe0f", "")


def hexcodes(files: dict[str, bytes]) -> dict[str, str]:
    """Subject name -> plain hexcode."""
    by_label = {entry["label"]: plain(entry["hexcode"]) for entry in json.loads(files["en/data.json"])}
    return {name: by_label[label] for name, label in SUBJECTS.items()}


def render_icon(icons: dict[str, Any], key: str) -> Image.Image:
    """One drawing of an Iconify collection, aliases followed."""
    while key not in icons["icons"]:
        key = icons["aliases"][key]["parent"]
    icon = icons["icons"][key]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="256" height="256">{icon["body"]}</svg>'
    )
    return open_rgba(bytes(resvg_py.svg_to_bytes(svg_string=svg)))


def open_rgba(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGBA")


def drawings(files: dict[str, bytes], codes: dict[str, str]) -> dict[str, Image.Image]:
    """Subject name -> drawing, from a folder of webp files or an Iconify collection."""
    if "icons.json" not in files:
        paths = {plain(Path(name).stem): name for name in files if name.endswith(".webp")}
        return {name: open_rgba(files[paths[code]]) for name, code in codes.items()}
    icons = json.loads(files["icons.json"])
    keys = {plain(code): key for code, key in json.loads(files["chars.json"]).items()}
    return {name: render_icon(icons, keys[code]) for name, code in codes.items()}


def cut(drawing: Image.Image) -> Image.Image:
    """The drawing without its empty border, its longer side ART_PX, in the middle of a sprite."""
    solid = drawing.getchannel("A").point(lambda alpha: 255 if alpha > 40 else 0)
    drawing = drawing.crop(solid.getbbox())
    scale = ART_PX / max(drawing.size)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    # Premultiplied, so that colours under transparent pixels do not bleed in.
    drawing = drawing.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    sprite = Image.new("RGBA", (SPRITE_PX, SPRITE_PX))
    sprite.paste(drawing, ((SPRITE_PX - width) // 2, (SPRITE_PX - height) // 2))
    return sprite


def outlined(sprite: Image.Image) -> Image.Image:
    """With a dark contour, which is what makes a drawing a cartoon at 64 pixels."""
    alpha = sprite.getchannel("A").filter(ImageFilter.MaxFilter(2 * OUTLINE_PX + 1))
    contour = Image.new("RGBA", sprite.size, (28, 24, 36, 0))
    contour.putalpha(alpha.filter(ImageFilter.GaussianBlur(1)))
    return Image.alpha_composite(contour, sprite)


def shadowed(sprite: Image.Image) -> Image.Image:
    """With a soft shadow below and to the right."""
    alpha = Image.new("L", sprite.size)
    alpha.paste(sprite.getchannel("A"), (5, 8))
    alpha = alpha.filter(ImageFilter.GaussianBlur(4)).point(lambda value: int(0.55 * value))
    shadow = Image.new("RGBA", sprite.size, (0, 0, 0, 0))
    shadow.putalpha(alpha)
    return Image.alpha_composite(shadow, sprite)


EFFECTS = {"3d": shadowed, "flat": lambda sprite: sprite, "cartoon": outlined}


def build_art(work: Path) -> None:
    """Write `work/sprites.npy`: (subjects, styles, SPRITE_PX, SPRITE_PX, 4) uint8, straight alpha."""
    if (work / "sprites.npy").exists():
        return
    packages = {name: members(fetch(package, work / "art")) for name, package in PACKAGES.items()}
    codes = hexcodes(packages["words"])
    sprites = np.zeros((len(SUBJECTS), len(STYLES), SPRITE_PX, SPRITE_PX, 4), np.uint8)
    for j, style in enumerate(STYLES):
        drawn = drawings(packages[style], codes)
        for i, name in enumerate(SUBJECTS):
            sprites[i, j] = np.asarray(EFFECTS[style](cut(drawn[name])))
    publish_array(work / "sprites.npy", sprites)
