"""A small parquet with the columns of Pick-a-Pic v2 that are read, and a few that are not."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pandas as pd
from PIL import Image

CAPTIONS = [
    f"a {size} {colour} {thing}"
    for size in ("small", "big")
    for colour in ("red", "blue")
    for thing in ("fox", "pizza", "fox on a background", "pizza on a background")
]


def write_parquet(file: Path, *, rows: int, noise_seed: int, row_group_size: int, ties: bool = True) -> Path:
    """Random JPEGs of several sizes; with `ties` every fifth row is one, and a few lack label or caption."""
    draw = random.Random(noise_seed)
    table = pd.DataFrame([_row(draw) for _ in range(rows)])
    if ties:
        table.loc[::5, ["label_0", "label_1"]] = 0.5
        table.loc[1::11, ["label_0", "label_1"]] = None
        table.loc[2::13, "caption"] = ""
    table.to_parquet(file, row_group_size=row_group_size)
    return file


def _row(draw: random.Random) -> dict[str, object]:
    winner = draw.randrange(2)
    return {
        "ranking_id": draw.randrange(10**6),
        "caption": draw.choice(CAPTIONS),
        "jpg_0": _jpeg(draw),
        "jpg_1": _jpeg(draw),
        "label_0": float(winner == 0),
        "label_1": float(winner == 1),
        "best_image_uid": str(winner),
        "user_id": draw.randrange(100),
    }


def _jpeg(draw: random.Random) -> bytes:
    size = draw.choice([(40, 40), (48, 32), (32, 56)])
    image = Image.frombytes("RGB", size, draw.randbytes(3 * size[0] * size[1]))
    file = io.BytesIO()
    image.save(file, format="JPEG")
    return file.getvalue()
