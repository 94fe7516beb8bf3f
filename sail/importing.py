"""Preference pairs that others collected, as parquet -> seed pairs in a folder. Knows no training.

Rows are as Pick-a-Pic's: `caption`, `jpg_0` and `jpg_1` (bytes of images), `label_0` and `label_1` (1 for
preferred, 0 for not, 0.5 for a tie). Ties and rows without a label or a caption are passed over, and of a
table that the app exported the pairs that its model judged (`source` "self"); how many, and why, is told.
"""

from __future__ import annotations

import hashlib
import io
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import ExifTags, Image
from pyarrow import ArrowInvalid
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from sail import backbones
from sail.backbones import Backbone
from sail.candidates import SPACE
from sail.config import MAX_PROMPT_CHARS, MAX_SIDE, Config
from sail.files import open_latents, publish, publish_json, publish_lines, publish_text, read_lines
from sail.memory import is_out_of_memory, loading
from sail.model_ref import ModelRef
from sail.policy import canonical
from sail.progress import tell_stage
from sail.records import LatentsRef, TrainingPair
from sail.rounds import NOT_TEXT
from sail.runfolder import claim

IMAGES, LABELS = ("jpg_0", "jpg_1"), ("label_0", "label_1")
FORMATS = ("JPEG", "PNG", "WEBP")
"""Of the images. Others made them, and of all that PIL reads it hands some formats to other programs."""
PAIRS_A_FILE = 16
"""Kept in one file of latents; what a stop loses."""
PAIRS, PROMPTS, RESULT = "pairs.jsonl", "prompts.txt", "result.json"
RULE = 4
"""Another number where other rows or pixels are taken: an import cut short would mix both."""
UNREADABLE = "unreadable"
"""Of a file of latents, in its metadata: the rows, counted from its first, whose images cannot be read."""
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

# Why a row is passed over, as it is told and counted.
TIED, NO_LABEL, BY_MODEL = "tied", "without a label", "judged by the model"
NO_CAPTION, NO_TEXT = "without a caption", "with a caption that is no text"
TOO_LONG = f"with a caption of over {MAX_PROMPT_CHARS:,} characters"
NO_IMAGE, NOT_DRAWN = "with an image that cannot be read", "not drawn by lot"


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


class Imported(Config):
    """What became of the rows of an import: its result.json."""

    pairs: int
    rows: int
    passed_over: dict[str, int]
    """Why -> how many rows; with `pairs` they are all of `rows`."""

    def in_words(self) -> str:
        """For the end of a sentence: "40 rows; passed over: 8 tied, 3 without a caption"."""
        what = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        passed = ", ".join(f"{count:,} {why}" for why, count in self.passed_over.items())
        return f"{what}; passed over: {passed}" if passed else what


class _Unreadable(ValueError):
    """An image that is none."""


def import_pairs(
    model: ModelRef,
    parquet: Path,
    out: Path,
    *,
    share: float,
    noise_seed: int,
    size: tuple[int, int] | None = None,
) -> Imported:
    """Draw rows by lot, encode their images; write latents/, prompts.txt, result.json and pairs.jsonl to OUT.

    A row's lot hangs on its file's name, its number and the noise seed alone. Stopped and started again it
    goes on; pairs.jsonl comes last. prompts.txt has the captions of no drawn row first, for the rounds to
    come. Rows whose images cannot be read are passed over as others are. ValueError names the file and what
    is wrong with it, and says what was found where no pair is left.
    """
    files = parquet_files(parquet)
    if not 0 < share <= 1:
        raise ValueError(f"The share of rows must be above 0 and at most 1, got {share}.")
    read = [one for file in files for one in rows_or_why_not(file)]
    rows = [one for one in read if isinstance(one, Row)]
    passed = Counter(one for one in read if isinstance(one, str))
    drawn = [row for row in rows if _lot(row, noise_seed) < share]
    _require_some(parquet, drawn, rows, passed)
    sizes = {file.name: file.stat().st_size for file in files}
    with loading():
        backbone = backbones.load(model)
    backbone.latent_shape(size)  # Refuses what the model cannot have, before the folder is this import's.
    request = ImportRequest(
        model=model, files=sizes, share=share, noise_seed=noise_seed, size=size, rule=RULE
    )
    claim(out, request, "import")
    passed[NOT_DRAWN] = len(rows) - len(drawn)

    def told(pairs: int) -> Imported:
        passed[NO_IMAGE] = len(drawn) - pairs
        return Imported(pairs=pairs, rows=len(read), passed_over=dict((+passed).most_common()))

    if (out / PAIRS).is_file():
        return told(len(read_lines(out / PAIRS)))
    (out / "latents").mkdir(exist_ok=True)
    encoded = _encode(backbone, drawn, out, size)
    if not encoded:
        raise ValueError(
            f"No pair of {parquet} has two images that can be read, as {', '.join(FORMATS)} of at most "
            f"{MAX_SIDE} pixels a side: {told(0).in_words()}. Take another file, and another --out."
        )
    taken = dict.fromkeys(row.prompt for row, _ in encoded)
    fresh = dict.fromkeys(row.prompt for row in rows if row.prompt not in taken)
    by_lot = sorted(fresh, key=lambda prompt: hashlib.sha256(f"{noise_seed}\n{prompt}".encode()).digest())
    publish_text(out / PROMPTS, "".join(f"{prompt}\n" for prompt in [*by_lot, *taken]))
    publish_json(out / RESULT, told(len(encoded)).model_dump())
    publish_lines(out / PAIRS, (_pair(row, winner).model_dump() for row, winner in encoded))
    return told(len(encoded))


def _require_some(
    parquet: Path, drawn: Sequence[Row], rows: Sequence[Row], passed: Mapping[str, int]
) -> None:
    """ValueError where nothing is drawn: it says what was found instead."""
    if drawn:
        return
    if rows:
        raise ValueError(f"No row of {parquet} was drawn: {len(rows)} have a winner. Give a larger --share.")
    found = Imported(pairs=0, rows=sum(passed.values()), passed_over=dict(Counter(passed).most_common()))
    raise ValueError(
        f"{parquet} has no row to learn from. Read: {found.in_words()}. A row needs a caption of at most "
        f"{MAX_PROMPT_CHARS:,} characters, and people who prefer one of its images: label_0 above label_1, "
        "or below."
    )


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


def rows_or_why_not(file: Path) -> Iterator[Row | str]:
    """Of every row, in order: the row, without its images, or why it is passed over.

    ValueError where the file cannot be read, or its labels are none.
    """
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
        raise _not_parquet(file, error) from error
    for number, row in enumerate(rows):
        first, second = (row[label] for label in LABELS)
        # What is no number is unlike anything, and is no label.
        if any(label is not None and (label < 0 or label > 1) for label in (first, second)):
            raise ValueError(
                f"{file}, row {number}: label_0 is {first} and label_1 {second}. Labels lie between 0 and 1: "
                "1 for the image that is preferred, 0 for the other, 0.5 for a tie."
            )
        prompt = " ".join((row["caption"] or "").split())
        why_not = _why_not(row.get("source"), prompt, first, second)
        yield why_not or Row(file, number, prompt, int(second > first))


def _why_not(source: str | None, prompt: str, first: float | None, second: float | None) -> str | None:
    """Why a row is passed over; None where it is not."""
    # A model that learned from its own choices as if people had made them would go astray.
    if source == "self":
        return BY_MODEL
    # Arrow keeps what is no number, which is unlike itself.
    if first is None or second is None or first != first or second != second:
        return NO_LABEL
    if first == second:
        return TIED
    if not prompt:
        return NO_CAPTION
    if len(prompt) > MAX_PROMPT_CHARS:
        return TOO_LONG
    return NO_TEXT if NOT_TEXT.search(prompt) else None


def _not_parquet(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} cannot be read as parquet: {str(error).rstrip('.')}.")


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


def _encode(
    backbone: Backbone, drawn: Sequence[Row], out: Path, size: tuple[int, int] | None
) -> list[tuple[Row, LatentsRef]]:
    """Write latents of winner, loser, winner, loser, ... of so many rows a file.

    Returns the rows whose images can be read, each with where its winner's latents lie; the loser's are next.
    """
    reader, encoded = _Images(), []
    tell_stage("encode pairs", len(drawn))
    for first in tqdm(range(0, len(drawn), PAIRS_A_FILE), desc="encode", disable=None, leave=False):
        some, name = drawn[first : first + PAIRS_A_FILE], _latents(first)
        if not (out / name).exists():
            content = _encoded(backbone, some, reader, size)
            publish(out / name, lambda beside, own=content: beside.write_bytes(own) and None)  # type: ignore[misc]
        with open_latents(out / name, instead=" Or remove it: the same command makes it anew.") as file:
            unreadable = json.loads(file.metadata().get(UNREADABLE, "[]"))
        readable = [row for place, row in enumerate(some) if place not in unreadable]
        encoded += [(row, LatentsRef(file=name, row=2 * place)) for place, row in enumerate(readable)]
    return encoded


def _encoded(backbone: Backbone, rows: Sequence[Row], reader: _Images, size: tuple[int, int] | None) -> bytes:
    """A file of the latents of these rows' images, without those that cannot be read: it says which."""
    parts, unreadable = [torch.empty(0, *backbone.latent_shape(size))], []
    for place, row in enumerate(rows):
        try:
            both = reader.of(row)
        except _Unreadable:
            unreadable.append(place)
        else:
            parts.append(_latents_of(backbone, [both[row.winner], both[1 - row.winner]], size))
    told = {UNREADABLE: json.dumps(unreadable)} if unreadable else {}
    return canonical(save({"latents": torch.cat(parts)}, {SPACE: backbone.latent_space, **told}))


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


def _pair(row: Row, winner: LatentsRef) -> TrainingPair:
    return TrainingPair(
        id=f"human-{row.file.stem}-{row.number}",
        prompt=row.prompt,
        winner=winner,
        loser=winner.model_copy(update={"row": winner.row + 1}),
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
        """_Unreadable where one of them is none; ValueError where the file itself cannot be read."""
        if row.file != self._file:
            self._open(row.file)
        group = bisect_right(self._starts, row.number) - 1
        if group != self._group:
            try:
                self._table: Any = self._parquet.read_row_group(group, columns=list(IMAGES))
            except (ArrowInvalid, OSError) as error:
                raise _not_parquet(row.file, error) from error
            self._group = group
        place = row.number - self._starts[group]
        first, second = (_image(self._table[column][place].as_py()) for column in IMAGES)
        return first, second

    def _open(self, file: Path) -> None:
        self._file, self._group = file, -1
        self._parquet: Any = pq.ParquetFile(file)
        groups = range(self._parquet.num_row_groups)
        counts = (self._parquet.metadata.row_group(group).num_rows for group in groups)
        self._starts = list(accumulate(counts, initial=0))


def _image(content: Any) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if max(image.size) > MAX_SIDE:
            # A small file may hold gigabytes of one colour.
            raise ValueError(f"It has {max(image.size)} pixels across; {MAX_SIDE} are the most.")
        return _upright(image)
    except (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise _Unreadable(str(error)) from error


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
