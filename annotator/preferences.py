"""What people preferred, as a table for other tools. Knows the store's records; knows no web page."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from annotator.store import Store

if TYPE_CHECKING:
    import pandas

COLUMNS = (
    "caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label", "both_bad",
    "source", "round", "annotator", "created_at", "elapsed_ms", "image_0_uid", "image_1_uid",
)  # fmt: skip
"""As in Pick-a-Pic where it has a name for it; `jpg_*` hold the image file's bytes (PNG)."""


def table(store: Store) -> pandas.DataFrame:
    """One row a judged pair."""
    import pandas  # Half a second, and only an export needs it.

    return pandas.DataFrame(_rows(store), columns=list(COLUMNS))


def parquet(store: Store) -> bytes:
    """The table as a parquet file."""
    file = io.BytesIO()
    table(store).to_parquet(file, index=False)
    return file.getvalue()


def _rows(store: Store) -> list[dict[str, Any]]:
    images: dict[str, bytes] = {}

    def image(uid: str) -> bytes:
        if uid not in images:
            images[uid] = store.image_file(uid).read_bytes()
        return images[uid]

    return [
        {
            "caption": one.prompt,
            "jpg_0": image(one.left),
            "jpg_1": image(one.right),
            "label_0": one.left_wins,
            "label_1": 1 - one.left_wins,
            "has_label": not one.both_bad,
            "both_bad": one.both_bad,
            "source": one.source,
            "round": one.round,
            "annotator": one.annotator,
            "created_at": datetime.fromtimestamp(one.at, UTC),
            "elapsed_ms": one.elapsed_ms,
            "image_0_uid": one.left,
            "image_1_uid": one.right,
        }
        for one in store.preferences()
    ]
