"""Read subject, style, background and size off a picture. Knows no prompt, no diffusion, no training."""

# N images, H W pixels

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from safetensors.torch import load_file
from torch import Tensor, nn

WIDTHS = (24, 48, 96, 128)
READ_PX = 64
READERS = ("annotating", "measuring")
"""Trained on disjoint halves of the scenes: one plays annotators, the other measures what came of it."""


class AttributeReader(nn.Module):
    """A small convolutional classifier with one head for each attribute."""

    def __init__(self, classes: dict[str, list[str]]) -> None:
        super().__init__()
        self.classes = classes
        """Attribute -> names of its classes, in the order of the probabilities."""
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        side = READ_PX // 2 ** len(WIDTHS)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(WIDTHS[-1] * side * side, len(names)) for name, names in classes.items()}
        )

    def forward(self, pixels_N3HW: Tensor) -> dict[str, Tensor]:
        """Attribute -> (N, classes) logits, from pixels in -1..1."""
        features = self.body(pixels_N3HW)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, images: Sequence[Image] | Tensor) -> dict[str, Tensor]:
        """Attribute -> (N, classes) probabilities, from PIL images or uint8 (N, H, W, 3)."""
        if not isinstance(images, Tensor):
            images = torch.from_numpy(np.stack([np.asarray(_fitting(image)) for image in images]))
        if images.dtype != torch.uint8 or images.shape[1:] != (READ_PX, READ_PX, 3):
            got = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(
                f"A reader takes uint8 (N, {READ_PX}, {READ_PX}, 3), got {got}. Resize the images."
            )
        pixels_N3HW = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        return {name: logits.softmax(1) for name, logits in self(pixels_N3HW).items()}

    def name(self, images: Sequence[Image] | Tensor) -> list[dict[str, str]]:
        """The most probable class of each attribute, image by image."""
        best = {name: p.argmax(1).tolist() for name, p in self.read(images).items()}
        count = len(next(iter(best.values())))
        return [{name: self.classes[name][best[name][i]] for name in best} for i in range(count)]

    @classmethod
    def load(cls, name: str, folder: Path | None = None) -> "AttributeReader":
        """The reader called "annotating" or "measuring"; `folder` is data/starter/readers if not given."""
        folder = folder or Path(__file__).resolve().parents[1] / "readers"
        weights = folder / f"{name}.safetensors"
        if not weights.exists():
            raise ValueError(f"No reader {name!r} in {folder}. Readers are called {' and '.join(READERS)}.")
        reader = cls(json.loads((folder / "classes.json").read_text()))
        reader.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
        return reader.eval().requires_grad_(False)


def _fitting(image: Image) -> Image:
    image = image.convert("RGB")
    return image if image.size == (READ_PX, READ_PX) else image.resize((READ_PX, READ_PX))
