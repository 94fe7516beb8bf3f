"""Files of a project that are given away. Knows folders; knows no database."""

from __future__ import annotations

from pathlib import Path


class Outside(ValueError):
    """A project, which others may have made, names a file that is none of its runs'."""


def inside(folder: Path, path: str | Path) -> Path:
    """What lies at `path` in `folder`. Outside where that, or a link on the way there, leads out of it."""
    found = (folder / path).resolve()
    if (folder / path).is_symlink() or not found.is_relative_to(folder.resolve()):
        raise Outside(f"{Path(path).name} lies outside its run folder, so it is not shown.")
    return found


def file_of(project: Path, run: str, path: str) -> Path:
    """A file of the run whose folder has that name. Outside where it is none of it.

    `runs` itself may be a link: people keep it on a larger disk.
    """
    return inside(inside(project / "runs", run), path)
