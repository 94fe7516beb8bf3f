"""What all tests share: no network, a fixed number of threads, a model folder's outline, a few pairs."""

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

import pytest

from sail.config import ModelRef, ProposeRequest
from sail.records import LatentsRef, TrainingPair

ROOT = Path(__file__).resolve().parents[1]


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
    """Make a pair whose two latents files hold the given bytes."""

    def make(name: str, winner: bytes = b"winner", loser: bytes = b"loser") -> TrainingPair:
        files = []
        for side, content in (("winner", winner), ("loser", loser)):
            file = tmp_path / "latents" / f"{name}-{side}.safetensors"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
            files.append(LatentsRef(file=str(file), row=0))
        return TrainingPair(id=name, prompt="a fox", winner=files[0], loser=files[1], source="human")

    return make
