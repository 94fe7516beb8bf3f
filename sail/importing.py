"""Preference pairs that others collected, as parquet -> seed pairs in a folder. Knows no training.

Rows are as Pick-a-Pic's: `caption`, `jpg_0` and `jpg_1` (bytes of images), `label_0` and `label_1` (1 for
preferred, 0 for not, 0.5 for a tie). Ties and rows without a label or a caption are left out, and of a table
that the app exported the pairs that its model judged (`source` "self").
"""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import ExifTags, Image
from pyarrow import ArrowInvalid
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from sail import backbones
from sail.backbones import Backbone
from sail.config import MAX_PROMPT_CHARS, MAX_SIDE, Config, ModelRef
from sail.memory import is_out_of_memory, loading
from sail.proposing import SPACE
from sail.records import LatentsRef, TrainingPair
from sail.rounds import NOT_TEXT
from sail.runfolder import claim, publish, publish_lines, publish_text, read_lines

IMAGES, LABELS = ("jpg_0", "jpg_1"), ("label_0", "label_1")
FORMATS = ("JPEG", "PNG", "WEBP")
"""Of the images. Others made them, and of all that PIL reads it hands some formats to other programs."""
PAIRS_A_FILE = 16
"""Kept in one file of latents; what a stop loses."""
PAIRS, PROMPTS = "pairs.jsonl", "prompts.txt"
RULE = 4
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned by what EXIF calls its orientation."""
"""Another number where other rows or pixels are taken: an import cut short would mix both."""


class ImportRequest(Config):
    """All that determines an import."""

    model: ModelRef
    files: dict[str, int]
    """Name of each parquet file -> its size in bytes."""
    share: float
    """Of the rows with a winner."""
    noise_seed: int
    size: tuple[int, int] | None = None
    """Height and width in pixels; None takes the model's own."""
    rule: int = 0
    """Which rows are taken; RULE as it was when the import was begun."""


class Row(NamedTuple):
    """A row with a winner."""

    file: Path
    number: int
    prompt: str
    winner: int
    """Which of IMAGES."""


def import_pairs(
    model: ModelRef,
    parquet: Path,
    out: Path,
    *,
    share: float,
    noise_seed: int,
    size: tuple[int, int] | None = None,
) -> int:
    """Draw rows by lot, encode their images, and write OUT/pairs.jsonl, prompts.txt and latents/.

    A row's lot hangs on its file's name, its number and the noise seed alone. Stopped and started again it
    goes on; pairs.jsonl comes last. prompts.txt has the captions of no drawn row first, for the rounds to
    come. Returns the number of pairs. ValueError names the file and what is wrong with it.
    """
    files = parquet_files(parquet)
    if not 0 < share <= 1:
        raise ValueError(f"The share of rows must be above 0 and at most 1, got {share}.")
    rows = [row for file in files for row in rows_with_winner(file)]
    drawn = [row for row in rows if _lot(row, noise_seed) < share]
    if not drawn:
        raise ValueError(f"No row of {parquet} was drawn: {len(rows)} have a winner. Give a larger --share.")
    sizes = {file.name: file.stat().st_size for file in files}
    with loading():
        backbone = backbones.load(model)
    backbone.latent_shape(size)  # Refuses what the model cannot have, before the folder is this import's.
    request = ImportRequest(
        model=model, files=sizes, share=share, noise_seed=noise_seed, size=size, rule=RULE
    )
    claim(out, request, "import")
    if (out / PAIRS).is_file():
        return len(drawn)
    (out / "latents").mkdir(exist_ok=True)
    _encode(backbone, drawn, out, size)
    taken = dict.fromkeys(row.prompt for row in drawn)
    fresh = dict.fromkeys(row.prompt for row in rows if row.prompt not in taken)
    by_lot = sorted(fresh, key=lambda prompt: hashlib.sha256(f"{noise_seed}\n{prompt}".encode()).digest())
    publish_text(out / PROMPTS, "".join(f"{prompt}\n" for prompt in [*by_lot, *taken]))
    publish_lines(out / PAIRS, (_pair(index, row).model_dump() for index, row in enumerate(drawn)))
    return len(drawn)


def imported(folder: Path) -> list[TrainingPair]:
    """The pairs of an import, their latents by absolute path. ValueError where there are none yet."""
    lines = read_lines(folder / PAIRS)
    if not lines:
        raise ValueError(
            f"{folder} holds no {PAIRS}. Make it with python -m sail import-pairs, or start that again."
        )
    root = folder.resolve()

    def here(ref: LatentsRef) -> LatentsRef:
        return LatentsRef(file=str(root / ref.file), row=ref.row)

    pairs = [TrainingPair.model_validate(line) for line in lines]
    return [
        pair.model_copy(update={"winner": here(pair.winner), "loser": here(pair.loser)}) for pair in pairs
    ]


def parquet_files(path: Path) -> list[Path]:
    """The file, or a folder's in the order of their names. ValueError where there is none."""
    found = [path] if path.is_file() else path.rglob("*.parquet")
    # By name alone, by which rows are drawn, wherever they lie below it. Folders may be called so too.
    files = sorted((file for file in found if file.is_file()), key=lambda file: file.name)
    if not files:
        raise ValueError(f"There is no parquet file at {path}. docs/paper.md says how to get Pick-a-Pic's.")
    if len({file.name for file in files}) < len(files):
        raise ValueError(f"Two files in {path} have one name, by which rows are drawn. Rename one.")
    return files


def rows_with_winner(file: Path) -> Iterator[Row]:
    """Rows in which people say which image is preferred, without their images."""
    try:
        parquet = pq.ParquetFile(file)
        names = set(parquet.schema_arrow.names)
        missing = {"caption", *IMAGES, *LABELS} - names
        if missing:
            raise ValueError(f"{file} has no column {', '.join(sorted(missing))}.")
        for name in {"caption", "source"} & names:
            _require_column(file, parquet.schema_arrow.field(name), "text", _is_text)
        for name in LABELS:
            _require_column(file, parquet.schema_arrow.field(name), "numbers", _is_number)
        table = parquet.read(columns=["caption", *LABELS, *({"source"} & names)])
        rows = table.to_pylist()
    except (ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as parquet: {str(error).rstrip('.')}.") from error
    for number, row in enumerate(rows):
        prompt = " ".join((row["caption"] or "").split())
        first, second = (row[label] for label in LABELS)
        if not 0 < len(prompt) <= MAX_PROMPT_CHARS or NOT_TEXT.search(prompt):
            continue
        # A model that learned from its own choices as if people had made them would go astray.
        if row.get("source") == "self":
            continue
        # Arrow keeps what is no number, which is unlike anything.
        if None not in (first, second) and (first > second or second > first):
            yield Row(file, number, prompt, int(second > first))


def _require_column(file: Path, column: pa.Field, what: str, is_so: Callable[[pa.DataType], bool]) -> None:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (is_so(kind) or pa.types.is_null(kind)):
        raise ValueError(f"{file}: column {column.name} has to hold {what}, and holds {column.type}.")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _lot(row: Row, noise_seed: int) -> float:
    """0 to 1, evenly."""
    digest = hashlib.sha256(f"{noise_seed}\n{row.file.name}\n{row.number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _encode(backbone: Backbone, drawn: Sequence[Row], out: Path, size: tuple[int, int] | None) -> None:
    """Latents of winner, loser, winner, loser, ... of so many rows a file."""
    reader = _Images()
    firsts, space = range(0, len(drawn), PAIRS_A_FILE), {SPACE: backbone.latent_space}
    for first in tqdm(firsts, desc="encode", disable=None, leave=False):
        file = out / _latents(first)
        if file.exists():
            continue
        parts = []
        for row in drawn[first : first + PAIRS_A_FILE]:
            both = reader.of(row)
            parts.append(_latents_of(backbone, [both[row.winner], both[1 - row.winner]], size))
        tensors = {"latents": torch.cat(parts).contiguous()}
        publish(file, lambda beside, own=tensors: save_file(own, beside, space))  # type: ignore[misc]


def _latents_of(backbone: Backbone, images: Sequence[Image.Image], size: tuple[int, int] | None) -> Tensor:
    try:
        return backbone.encode(images, size).cpu()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(
            f"Memory ran out with the {len(images)} images of one pair at once. "
            "Take a smaller --size or model and another --out."
        ) from error


def _pair(index: int, row: Row) -> TrainingPair:
    file, place = _latents(index), 2 * (index % PAIRS_A_FILE)
    return TrainingPair(
        id=f"human-{row.file.stem}-{row.number}",
        prompt=row.prompt,
        winner=LatentsRef(file=file, row=place),
        loser=LatentsRef(file=file, row=place + 1),
        source="human",
    )


def _latents(index: int) -> str:
    return f"latents/{index // PAIRS_A_FILE:06d}.safetensors"


class _Images:
    """Images of rows. Keeps the row group that was read last: rows come in their order."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._starts: list[int] = []
        self._group = -1

    def of(self, row: Row) -> tuple[Image.Image, Image.Image]:
        if row.file != self._file:
            self._open(row.file)
        group = bisect_right(self._starts, row.number) - 1
        if group != self._group:
            self._table: Any = self._parquet.read_row_group(group, columns=list(IMAGES))
            self._group = group
        place = row.number - self._starts[group]
        first, second = (self._image(row, column, place) for column in IMAGES)
        return first, second

    def _open(self, file: Path) -> None:
        self._file, self._group = file, -1
        self._parquet: Any = pq.ParquetFile(file)
        groups = range(self._parquet.num_row_groups)
        counts = (self._parquet.metadata.row_group(group).num_rows for group in groups)
        self._starts = list(accumulate(counts, initial=0))

    def _image(self, row: Row, column: str, place: int) -> Image.Image:
        try:
            content = io.BytesIO(self._table[column][place].as_py())
            image = Image.open(content, formats=FORMATS)
            if max(image.size) > MAX_SIDE:
                # A small file may hold gigabytes of one colour.
                raise ValueError(f"It has {max(image.size)} pixels across; {MAX_SIDE} are the most.")
            return _upright(image)
        except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{row.file}, row {row.number}: {column} is no image that can be read. "
                "Take the file out, or write it again without that row, and choose another --out."
            ) from error


def _upright(image: Image.Image) -> Image.Image:
    """As it was seen: cameras store a photo as they were held, with a word on which way is up."""
    try:
        way = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        # Of what is written beside a picture anything may be broken: Pillow raises whatever it meets.
        way = None
    turn = TURNS.get(way) if isinstance(way, int) else None
    picture = image.convert("RGB")
    return picture if turn is None else picture.transpose(turn)
