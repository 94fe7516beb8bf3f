"""What can be seen of a model without loading it. Knows files; knows no tensor and no project."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sail.model_ref import FAMILIES, ModelRef

OTHER_FORMS = (".fp16", ".bf16", ".non_ema")
"""In names of files with the same weights once more."""
NOT_READ = "safety_checker"
"""A part that is not loaded, and so is in no pipeline that is written here."""


def require_known(model: ModelRef) -> None:
    """ValueError where a model is evidently of no family that is known here."""
    found = model.pipeline
    if found is not None and found not in FAMILIES:
        raise ValueError(f"{model.source} is a {found}. Known families: {', '.join(FAMILIES)}.")


def require_alike(model: ModelRef, *, pipeline: str | None, latent_channels: int | None) -> None:
    """ValueError where a model is evidently not of this pipeline, or its latents not of so many channels."""
    found = (
        ("pipeline", model.pipeline, pipeline),
        ("latent channels", model.described("vae/config.json", "latent_channels"), latent_channels),
    )
    for what, own, expected in found:
        if None not in (own, expected) and own != expected:
            raise ValueError(
                f"{model.source} is another model ({what}: {own}; this project's: {expected}). "
                "Labels and adapters belong to their model: give the same one, or make a new project."
            )


def float32_bytes(model: ModelRef) -> int | None:
    """Bytes of its weights, written in float32; None where they cannot be seen."""
    try:
        return 4 * sum(map(_weights_in, _weights_of(model))) or None
    except (SafetensorError, OSError):
        return None


def _weights_of(model: ModelRef) -> Iterator[Path]:
    if Path(model.source).is_file():
        yield Path(model.source)
    elif model.folder:
        for part in {file.parent for file in model.folder.glob("*/config.json")}:
            found = list(part.glob("*.safetensors")) if part.name != NOT_READ else []
            yield from [file for file in found if not any(form in file.name for form in OTHER_FORMS)] or found


def _weights_in(file: Path) -> int:
    with safe_open(file, framework="numpy") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def channels_in(latents: Path) -> int | None:
    """Channels of the latents in a candidates file; None where it cannot be read."""
    try:
        with safe_open(latents, framework="numpy") as file:
            return int(file.get_slice("latents").get_shape()[1])
    except (SafetensorError, OSError):
        return None
