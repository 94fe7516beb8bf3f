"""What can be seen of a model without loading it. Knows files; knows no tensor and no project."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from sail.config import FAMILIES, ModelRef


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


def channels_in(latents: Path) -> int | None:
    """Channels of the latents in a candidates file; None where it cannot be read."""
    try:
        with safe_open(latents, framework="numpy") as file:
            return int(file.get_slice("latents").get_shape()[1])
    except (SafetensorError, OSError):
        return None
