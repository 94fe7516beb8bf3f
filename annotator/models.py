"""What can be seen of a model without loading it. Knows files; knows no tensor and no project."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sail.config import FAMILIES, HUB_ID, ModelRef

INDEX = "model_index.json"


def folder_of(model: ModelRef) -> Path | None:
    """The folder of a model's configuration; None where there is no such model on this machine."""
    if os.path.isdir(model.source):
        return Path(model.source)
    if os.path.isfile(model.source):
        return Path(model.source).with_suffix("")
    if not HUB_ID.fullmatch(model.source):
        return None
    # Takes a fifth of a second to load, before a waiting person.
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.source, INDEX, revision=model.revision)
    return Path(found).parent if isinstance(found, str) else None


def pipeline_of(model: ModelRef) -> str | None:
    """Name of the diffusers pipeline that it is one of; None where that cannot be seen."""
    found = _value(model, INDEX, "_class_name")
    return found if isinstance(found, str) else None


def require_known(model: ModelRef) -> None:
    """ValueError where a model is evidently of no family that is known here."""
    found = pipeline_of(model)
    if found is not None and found not in FAMILIES:
        raise ValueError(f"{model.source} is a {found}. Known families: {', '.join(FAMILIES)}.")


def require_alike(model: ModelRef, *, pipeline: str | None, latent_channels: int | None) -> None:
    """ValueError where a model is evidently not of this pipeline, or its latents not of so many channels."""
    found = (
        ("pipeline", pipeline_of(model), pipeline),
        ("latent channels", _value(model, "vae/config.json", "latent_channels"), latent_channels),
    )
    for what, own, expected in found:
        if None not in (own, expected) and own != expected:
            raise ValueError(
                f"{model.source} is another model ({what}: {own}; this project's: {expected}). "
                "Labels and adapters belong to their model: give the same one, or make a new project."
            )


def channels_in(latents: Path) -> int | None:
    """Channels of the latents in a candidates file; None where it cannot be read."""
    try:
        with safe_open(latents, framework="numpy") as file:
            return int(file.get_slice("latents").get_shape()[1])
    except (SafetensorError, OSError):
        return None


def _value(model: ModelRef, file: str, key: str) -> Any:
    folder = folder_of(model)
    try:
        return json.loads((folder / file).read_text(encoding="utf-8")).get(key) if folder else None
    except (OSError, ValueError, AttributeError):
        return None
