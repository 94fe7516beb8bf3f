"""Every read and write of a project, as domain verbs. Knows SQLite; knows no web page and no process.

Labels, reviews and decisions are appended, never changed: taking back is one more event. One thread
writes (annotator.writer); every reading thread has its own connection. All methods may be called from
any thread. No table is named outside this package and annotator.migrations.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from annotator.store.base import DATABASE, STARTER, DatabaseError, Displaced
from annotator.store.comparisons import Comparisons
from annotator.store.files import Outside, inside, require_no_links
from annotator.store.history import History
from annotator.store.labels import Labels
from annotator.store.learning import Learning
from annotator.store.people import People
from annotator.store.standing import FactCounts
from sail.files import fsync_folder
from sail.model_ref import ModelRef
from sail.settings import LoopSettings

__all__ = [
    "DATABASE", "STARTER", "DatabaseError", "Displaced", "FactCounts", "Outside", "Store",
    "inside", "require_no_links",
]  # fmt: skip


class Store(Labels, Learning, Comparisons, People, History):
    """One project folder: `project.db`, and `runs/` beside it."""

    @classmethod
    def create(
        cls,
        folder: Path | str,
        *,
        model: ModelRef,
        prompts: Sequence[str],
        settings: LoopSettings | None = None,
        download: bool = False,
        starter: Path | None = None,
        by: str,
    ) -> Store:
        """Make a project folder, whole or not at all."""
        final = Path(folder).resolve()
        if final.exists() and (not final.is_dir() or any(final.iterdir())):
            raise ValueError(f"{final} exists already. Choose another name for the new project.")
        final.parent.mkdir(parents=True, exist_ok=True)
        # A folder of one's own: others may be making a project of that name at the same time.
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}.") as own:
            building = Path(own, final.name)
            (building / "runs").mkdir(parents=True)
            (building / DATABASE).touch()
            store = cls(building, starter=starter)
            store.set_model(model, download=download, by=by)
            store.set_prompts(prompts, by=by)
            store.set_settings(settings or LoopSettings(), by=by)
            store.close()
            if final.exists():
                final.rmdir()
            os.replace(building, final)
        fsync_folder(final.parent)
        return cls(final, starter=starter)
