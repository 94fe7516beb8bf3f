"""What all tests share: no network, a fixed number of threads, a few pairs, a tiny model that has learned."""

from __future__ import annotations

import os

# Facts are stated about CPUs, and tests start more processes than a machine may have GPUs.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# Bits change with the number of threads; `make test` says the same.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from pairs import human_pairs
from safetensors.numpy import save_file

from sail.config import Scoring
from sail.model_ref import ModelRef
from sail.records import LatentsRef, TrainingPair
from sail.requests import ProposeRequest
from sail.runfolder import RunFolder

ROOT = Path(__file__).resolve().parents[1]


# The same examples each time, however slow a machine is.
settings.register_profile("facts", deadline=None, derandomize=True, database=None)
settings.load_profile("facts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What drives a browser comes last, since no event loop can start in its process any more; of that the
    whole loop first, since it takes minutes, for which the other process would wait at the end."""
    items.sort(key=lambda item: ("browser" in item.path.parts, item.path.name != "test_loop.py"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def request_of_seed_pairs() -> ProposeRequest:
    """The least a run can be asked to do."""
    return ProposeRequest(model=ModelRef(source="somewhere"), prompts=("a fox",), num_candidates=2)


@pytest.fixture
def training_pair(tmp_path: Path) -> Callable[..., TrainingPair]:
    """Make a pair whose two latents files differ where the given bytes do."""

    def make(name: str, winner: bytes = b"winner", loser: bytes = b"loser") -> TrainingPair:
        files = []
        for side, content in (("winner", winner), ("loser", loser)):
            file = tmp_path / "latents" / f"{name}-{side}.safetensors"
            file.parent.mkdir(exist_ok=True)
            save_file({"latents": np.frombuffer(content, np.uint8)}, file)
            files.append(LatentsRef(file=str(file), row=0))
        return TrainingPair(id=name, prompt="a fox", winner=files[0], loser=files[1], source="human")

    return make


class Disk:
    """What was synced since it was last changed, and what was renamed."""

    def __init__(self) -> None:
        self._synced: dict[int, int] = {}
        self._fsync, self._replace = os.fsync, os.replace
        self.watched: Path | None = None
        """What is to be on disk at a rename, where that is not what is renamed."""
        self.renamed: list[tuple[str, bool]] = []
        """Names, and whether what had to be on disk by then was."""

    def fsync(self, descriptor: int) -> None:
        there = os.fstat(descriptor)
        self._synced[there.st_ino] = there.st_size

    def replace(self, source: str | Path, target: str | Path) -> None:
        whole = self.has(self.watched or Path(source))
        self._replace(source, target)
        self.renamed.append((Path(target).name, whole))
        self._synced.pop(Path(target).parent.stat().st_ino, None)

    def has(self, path: Path) -> bool:
        """Whether it, and all below it, is on disk as it is; of what has other names as well, its name."""
        return path.exists() and all(map(self._is_synced, (path, *path.rglob("*"))))

    def _is_synced(self, path: Path) -> bool:
        there = path.stat()
        if path.is_dir():
            return there.st_ino in self._synced
        return there.st_nlink > 1 or self._synced.get(there.st_ino) == there.st_size


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Notes what is synced, and syncs nothing."""
    noted = Disk()
    monkeypatch.setattr(os, "fsync", noted.fsync)
    monkeypatch.setattr(os, "replace", noted.replace)
    return noted


# The engine. What it is made of takes seconds to import, which only its own tests are to wait for.


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_model import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def model(tiny_model: Path) -> ModelRef:
    return ModelRef(source=str(tiny_model))


@pytest.fixture(scope="session")
def proposed(model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Four prompts of two candidates from the base model."""
    from engine import PROMPTS, QUICK

    from sail.running import execute

    request = ProposeRequest(model=model, prompts=PROMPTS, num_candidates=2, sampling=QUICK)
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "0000-propose", request)
    execute(folder)
    return folder


@pytest.fixture(scope="session")
def trained(model: ModelRef, proposed: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    from engine import train_request

    from sail.running import execute

    folder = RunFolder.create(
        tmp_path_factory.mktemp("trained") / "0001-train", train_request(model), pairs=human_pairs(proposed)
    )
    execute(folder)
    return folder


@pytest.fixture(scope="session")
def judged(model: ModelRef, trained: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three candidates of each prompt, judged by `trained` against base on four draws."""
    from engine import PROMPTS, QUICK

    from sail.running import execute

    sha256 = trained.result()["sha256"]
    request = ProposeRequest(
        model=model,
        adapter=sha256,
        prompts=PROMPTS,
        num_candidates=3,
        sampling=QUICK,
        scoring=Scoring(draws=4),
    )
    path = tmp_path_factory.mktemp("judged") / "0002-propose"
    folder = RunFolder.create(path, request, adapters={sha256: trained.path / "adapter"})
    execute(folder)
    return folder
