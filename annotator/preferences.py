"""What people preferred, as a table for other tools. Knows the store's records; knows no web page."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotator.rows import Preference
from annotator.store import Outside, Store

COLUMNS = {
    "caption": "the prompt",
    "jpg_0": "the image that stood left, as PNG",
    "jpg_1": "the image that stood right, as PNG",
    "label_0": "1: the left image is preferred; 0: the right one; 0.5: a tie, or both are bad",
    "label_1": "1 less label_0",
    "has_label": "no where both are bad, else yes",
    "both_bad": "yes where both are bad",
    "source": "human: a person chose; self: the model did",
    "round": "0: of the pairs that people label; else the round for which the model chose",
    "annotator": "tells people apart, without their names; judge: the model",
    "created_at": "when it was answered",
    "elapsed_ms": "how long the answer took, in milliseconds",
    "image_0_uid": "what the app calls the left image",
    "image_1_uid": "what the app calls the right image",
    "reasons": "the reasons that were ticked",
    "reason_text": "what was typed as a reason, word for word",
}
"""What each column holds. As in Pick-a-Pic where it has a name for it."""
ABOUT_PEOPLE = ("annotator", "created_at", "elapsed_ms", "reasons", "reason_text")
"""Of them those that tell of who answered."""
GROUP_BYTES = 16_000_000
"""So much of images makes a row group: what is in memory at once is a few times this, however many pairs."""

Group = dict[int, tuple[bytes, bytes]]
"""Numbers of rows to their two images."""


def write_parquet(store: Store, file: Path, *, about_people: bool = True) -> None:
    """Write one row a judged pair, without those an image of which is gone or none of the project's.

    How many these are is in the file's metadata, as `left_out`. Columns of ABOUT_PEOPLE only where
    `about_people` says so.
    """
    # Half a second, and only an export needs them.
    import pandas
    import pyarrow
    import pyarrow.parquet

    preferred = store.preferences()
    table = pandas.DataFrame([_row(store, one) for one in preferred], columns=list(COLUMNS))
    text = pyarrow.large_string()
    types = {
        "jpg_0": pyarrow.binary(),
        "jpg_1": pyarrow.binary(),
        "label_0": pyarrow.float64(),
        "label_1": pyarrow.float64(),
        "has_label": pyarrow.bool_(),
        "both_bad": pyarrow.bool_(),
        "round": pyarrow.int64(),
        "created_at": pyarrow.timestamp("us", tz="UTC"),
        "elapsed_ms": pyarrow.int64(),
        "reasons": pyarrow.list_(pyarrow.string()),
    }
    # Said, not found: where nobody gave a reason, or no time is known, there is nothing to find it by.
    columns = [name for name in COLUMNS if about_people or name not in ABOUT_PEOPLE]
    schema = pyarrow.schema([(name, types.get(name, text)) for name in columns])
    left_out = len(table)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(store, preferred):
            left, right = zip(*group.values(), strict=True)
            part = table.iloc[list(group)].assign(jpg_0=left, jpg_1=right)
            writer.write_table(pyarrow.Table.from_pandas(part, schema=schema, preserve_index=False))
            left_out -= len(group)
        writer.add_key_value_metadata({"left_out": str(left_out)})


def _groups(store: Store, preferred: Sequence[Preference]) -> Iterator[Group]:
    """Rows in their order, about GROUP_BYTES of images at a time."""
    group: Group = {}
    size = 0
    for number, one in enumerate(preferred):
        try:
            left, right = (store.image_file(uid).read_bytes() for uid in (one.left, one.right))
        except (FileNotFoundError, Outside):
            continue
        group[number] = (left, right)
        size += len(left) + len(right)
        if size >= GROUP_BYTES:
            yield group
            group, size = {}, 0
    if group:
        yield group


def _called(store: Store, person: str) -> str:
    """The same for all rows of a person, and no way to their id, with which one could speak as them."""
    if person == "judge":
        return person
    return hashlib.sha256(f"{store.identity}\n{person}".encode()).hexdigest()[:16]


def _row(store: Store, one: Preference) -> dict[str, Any]:
    """A row whose images are still to come."""
    return {
        "caption": one.prompt,
        "jpg_0": b"",
        "jpg_1": b"",
        "label_0": one.left_wins,
        "label_1": 1 - one.left_wins,
        "has_label": not one.both_bad,
        "both_bad": one.both_bad,
        "source": one.source,
        "round": one.round,
        "annotator": _called(store, one.annotator),
        "created_at": datetime.fromtimestamp(one.at, UTC),
        "elapsed_ms": one.elapsed_ms,
        "image_0_uid": one.left,
        "image_1_uid": one.right,
        "reasons": list(one.reasons),
        "reason_text": one.reason_text,
    }
