"""Candidates as files: images, latents, and the record that names them. Knows no run's purpose."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from sail.files import open_latents, publish, publish_json
from sail.policy import Policy
from sail.records import Candidate, CandidateSet
from sail.runfolder import Lost, RunFolder

PATIENCE_S = 60
"""So long the main process waits to see what processes on other nodes have written."""
SPACE = "latent_space"
"""In the metadata of a file of latents: of which autoencoder they are."""


def decoded(policy: Policy, latents_NCHW: Tensor, chunk: int) -> Tensor:
    """Images of latents, at most `chunk` at once: N H W 3 uint8 on the CPU."""
    backbone = policy.backbone
    return policy.at_once.cat(
        "decode",
        chunk,
        len(latents_NCHW),
        lambda some: backbone.decode(latents_NCHW[some].to(backbone.device)),
    )


def publish_candidates(
    run: Path,
    prompt_index: int,
    prompt: str,
    tensors: dict[str, Tensor],
    images_NHW3: Tensor,
    to_show: Sequence[tuple[int, int]] = (),
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Images and tensors of one prompt's candidates, then the record that names them.

    ValueError where a tensor has a value that is not finite: nobody is asked about an image of nothing, and
    one such error of the judge's would be in the weights of all draws.
    """
    if not torch.isfinite(tensors["latents"]).all():
        raise ValueError(
            f"What was drawn for {prompt!r} has values that are not finite, so there is no picture. "
            "Are the model's files whole? An adapter that went too far does it as well: "
            "go on from an earlier round. If it is this prompt alone, take it out."
        )
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError(
            f"What the judge measured of the images of {prompt!r} is not finite, so no pair of the run could "
            "be ranked. An adapter that went too far does it: go on from an earlier round. If it is this "
            "prompt alone, take it out."
        )
    name = f"candidates/{prompt_index:05d}"
    candidates = []
    for index, image_HW3 in enumerate(images_NHW3):
        file = f"{name}-{index}.png"
        publish(run / file, lambda beside, own=image_HW3: save_png(own, beside))  # type: ignore[misc]
        candidates.append(Candidate(index=index, image=file))
    latents = f"{name}.safetensors"
    publish(run / latents, lambda beside: save_file(tensors, beside, dict(metadata or {})))
    found = CandidateSet(
        prompt_index=prompt_index,
        prompt=prompt,
        latents=latents,
        candidates=tuple(candidates),
        to_show=tuple(to_show),
    )
    # Last: what it names is there when it is.
    publish_json(run / f"{name}.json", found.model_dump())


def save_png(image_HW3: Tensor, path: Path) -> None:
    Image.fromarray(image_HW3.numpy()).save(path, format="PNG")


def require_all(folder: RunFolder, count: int) -> None:
    """Wait for what all processes have written: on a shared file system others' files may be seen later.

    Lost where it does not come.
    """
    for _ in range(PATIENCE_S):
        if (found := len(folder.finished_prompts())) == count:
            return
        time.sleep(1)
    raise Lost(
        f"{folder.path} holds candidates of {found} prompts, and {count} were drawn. "
        "Do all processes see the same folder? Resume draws what is missing."
    )


def space_of(file: Path) -> str | None:
    """Of which autoencoder its latents are, where the file says so."""
    with open_latents(file) as opened:
        return (opened.metadata() or {}).get(SPACE)


def load_latents(run: Path, file: str, row: int) -> Tensor:
    """One candidate's final latents: C H W float32."""
    with open_latents(run / file) as opened:
        latents: Tensor = opened.get_slice("latents")[row]
    if not torch.isfinite(latents).all():
        raise ValueError(f"{run / file} is broken: row {row} has values that are not finite.")
    return latents
