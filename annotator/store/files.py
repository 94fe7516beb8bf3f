"""Where the files of a project's runs lie. Knows folders; knows no database.

Others may have made the project, so what it says is the name of a file is held against what such names are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args

from sail.requests import Kind

RUN_FOLDER = re.compile(rf"([0-9]{{4,}})-(?:{'|'.join(get_args(Kind))})")
"""What jobs.create calls a run folder: the run's number and the kind of its request."""
IMAGE = re.compile(r"candidates/[0-9]{5,}-[0-9]+\.png")
"""What sail.candidates calls the image of a candidate: its prompt's index and its own."""


class Outside(ValueError):
    """A project, which others may have made, names a file that is none of its runs'."""


def inside(folder: Path, path: str | Path) -> Path:
    """What lies at `path` in `folder`. Outside where that, or a link on the way there, leads out of it."""
    found = (folder / path).resolve()
    if (folder / path).is_symlink() or not found.is_relative_to(folder.resolve()):
        raise Outside(f"{Path(path).name} lies outside its folder {folder.name}, so it is left alone.")
    return found


def run_folder_of(project: Path, name: str) -> Path:
    """The run folder of that name. Outside where no run folder is called so, or it leads elsewhere.

    `runs` itself may be a link: people keep it on a larger disk. What else lies there is not ours.
    """
    if not RUN_FOLDER.fullmatch(name):
        raise Outside(f"No run folder is called {name!r}, so what lies there is left alone.")
    return inside(project / "runs", name)


def image_of(project: Path, run: str, image: str) -> Path:
    """An image of the run whose folder has that name. Outside where it is none of it."""
    folder = run_folder_of(project, run)
    if not IMAGE.fullmatch(image):
        raise Outside(f"No image is called {Path(image).name!r}, so what lies there is left alone.")
    return inside(folder, image)


def require_no_links(folder: Path) -> None:
    """Outside where anything in a run folder is a link: what is written there would land elsewhere.

    The algorithm makes none itself; what runs share are hard links.
    """
    # That it is gone says who reads it.
    left = [str(folder)] if folder.is_dir() else []
    while left:
        # What is a link the listing says: of 100,000 files none is asked for by itself.
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise Outside(
                        f"{os.path.relpath(entry.path, folder)} in the run folder {folder.name} is a link, "
                        "and what is written there would land elsewhere. Put what it leads to in its place, "
                        "then resume."
                    )
                if entry.is_dir():
                    left.append(entry.path)
