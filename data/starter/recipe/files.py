"""Publish whole files: write beside, fsync, rename. Knows nothing of what is in them."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np


def publish(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def publish_text(path: Path, text: str) -> None:
    publish(path, text.encode())


def publish_array(path: Path, array: "np.ndarray[Any, Any]") -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    publish(path, buffer.getvalue())
