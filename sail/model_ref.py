"""Which model, and what can be seen of it without loading it. Knows no tensor."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final, Literal

from safetensors import SafetensorError, safe_open

from sail.config import Config, Sampling

INDEX: Final = "model_index.json"
"""In every model's folder: what it consists of."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
Precision = Literal["auto", "float32", "bfloat16"]
FAMILIES: Final = {
    "StableDiffusionPipeline": Sampling(guidance=7.5),
    "StableDiffusionXLPipeline": Sampling(guidance=5.0),
    "StableDiffusion3Pipeline": Sampling(steps=28, guidance=7.0),
    "FluxPipeline": Sampling(steps=28, guidance=3.5),
}
"""Pipelines of diffusers that are known here, as model_index.json names them, and how their models are drawn
where nothing else is said: as by the pipeline's own defaults, Stable Diffusion's and SDXL's in 20 steps."""
SCHNELL: Final = Sampling(steps=4, guidance=0.0)
"""Flux without an input for guidance, which was distilled to few steps as well."""


def _require_whole(file: str) -> None:
    """Reads the header of a checkpoint alone, which says how long the file has to be."""
    try:
        with safe_open(file, framework="numpy"):
            return
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} cannot be read as safetensors: {error}. If it was downloaded, download it again."
        ) from error


class ModelRef(Config):
    """A text-to-image model: a diffusers folder, a .safetensors checkpoint, or a Hugging Face name with its
    revision."""

    source: str
    revision: str | None = None
    """Commit of the hub model; for a checkpoint without a folder beside it, of its configuration there."""
    precision: Precision = "auto"
    """Of the model's arithmetic; `auto` is bfloat16 on a GPU that has it by itself and float32 elsewhere.
    Latents, errors and adapters are float32 either way."""

    @property
    def folder(self) -> Path | None:
        """Where its configuration lies; None where there is no such model on this machine."""
        # os.path, since pathlib raises on names that are too long.
        if os.path.isdir(self.source):
            return Path(self.source)
        if os.path.isfile(self.source):
            return Path(self.source).with_suffix("")
        if not HUB_ID.fullmatch(self.source):
            return None
        # Takes a fifth of a second to load, before a waiting person.
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.source, INDEX, revision=self.revision)
        return Path(found).parent if isinstance(found, str) else None

    def described(self, file: str, key: str) -> Any:
        """A value of its configuration; None where that cannot be seen without loading it."""
        folder = self.folder
        try:
            return json.loads((folder / file).read_text(encoding="utf-8")).get(key) if folder else None
        except (OSError, ValueError, AttributeError):
            return None

    @property
    def pipeline(self) -> str | None:
        """Name of the diffusers pipeline that it is one of; None where that cannot be seen."""
        found = self.described(INDEX, "_class_name")
        return found if isinstance(found, str) else None

    @property
    def is_schnell(self) -> bool:
        """Whether it can be seen to be Flux without an input for guidance."""
        embeds = self.described("transformer/config.json", "guidance_embeds")
        return self.pipeline == "FluxPipeline" and embeds is False

    @property
    def sampling(self) -> Sampling:
        """How its family is drawn; the defaults where that cannot be seen."""
        return SCHNELL if self.is_schnell else FAMILIES.get(self.pipeline or "", Sampling())

    def checked(self) -> ModelRef:
        """Raise ValueError where the source can be seen to be unusable; return self otherwise."""
        # os.path, since pathlib raises on names that are too long.
        if self.source and os.path.isfile(os.path.join(self.source, INDEX)):
            return self
        if os.path.isfile(self.source):
            if self.source.endswith(".safetensors"):
                _require_whole(self.source)
                return self
            raise ValueError(
                f"{self.source} is no .safetensors file, and a pickle can run code of its own. "
                "Convert it to safetensors."
            )
        if os.path.exists(self.source):
            raise ValueError(
                f"{self.source} is not a diffusers model: it has no model_index.json. "
                "Give the folder that `save_pretrained` wrote."
            )
        if HUB_ID.fullmatch(self.source) and ".." not in self.source:
            if self.revision is None:
                raise ValueError(
                    f"No model folder at {self.source}; as a Hugging Face name it needs a revision "
                    "(a commit hash)."
                )
            return self
        raise ValueError(
            f"No model at {self.source!r}. "
            "Give a folder with a model_index.json, a .safetensors file or a Hugging Face name (owner/model)."
        )
