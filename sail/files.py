"""Files that are there whole or not at all. Knows paths; knows no run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

MB = 1_000_000
"""Bytes."""


def _mode() -> int:
    """What a new file may be read by, as this user has it. It can only be read by being set."""
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


MODE = _mode()


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file beside `path`, then put it in place whole, or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        try:
            write(beside)
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}.") from error
        # safetensors writes files that are their owner's alone.
        beside.chmod(MODE)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    fsync_folder(path.parent)


def publish_text(path: Path, text: str) -> None:
    publish(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def publish_json(path: Path, value: Any) -> None:
    publish_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def publish_lines(path: Path, values: Iterable[Any]) -> None:
    publish_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def publish_folder(building: Path, target: Path) -> None:
    """Rename a folder once all in it is on disk."""
    for path in [*building.rglob("*"), building]:
        if path.is_file():
            path.chmod(MODE)
        fsync_folder(path)
    building.replace(target)
    fsync_folder(target.parent)


def fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_latents(file: Path, framework: Literal["pt", "numpy"] = "pt", *, instead: str = "") -> Iterator[Any]:
    """A file of latents as safetensors opens it. ValueError where it is cut short, with its name and what can
    be done instead of copying it again."""
    try:
        with safe_open(file, framework) as opened:
            yield opened
    except SafetensorError as error:
        raise ValueError(f"{file} is broken: {error}. Copy it again from where it came.{instead}") from error


def open_no_link(path: str, flags: int) -> int:
    """For `open`: OSError where the file is a link.

    Others may have made a run folder, and a link in the place of its log would have any file read or written.
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system allows one, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        publish(target, lambda beside: shutil.copyfile(source, beside))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a .jsonl file; [] where there is none; a last line without its newline is left out.
    ValueError names the file where a line is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        return [json.loads(line) for line in text.split("\n")[:-1] if line]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} has a line that is no JSON: {error}.") from error
