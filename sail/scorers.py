"""Outside judges: how much published models like an image of a prompt. Knows no adapter, run or interval.

The loop never asks them. N images, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from sail.backbones.loading import CONFIGS, first_line, from_hub, quietly

HEAD = "aesthetic.safetensors"
"""The layers of the aesthetic predictor above its CLIP, in the folder given for it."""


class Scorer(Protocol):
    """A judge of images. What it is loaded from, and onto which device, is its own business."""

    def __call__(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> Tensor:
        """How good each image is for the prompt of the same place: (N,), higher is better."""
        ...


Load = Callable[[torch.device], Scorer]
"""Reads the weights onto a device: only when it is called, and not before images are there to be judged."""


class Clip:
    """A CLIP, and the image processor and tokenizer that it was trained with.

    In float32: the scores of two images of one prompt differ in the third digit, which bfloat16 lacks.
    """

    def __init__(self, folder: Path, processor: Path, device: torch.device) -> None:
        self._model = _read(CLIPModel, folder).to(device)
        # The one that needs no torchvision: scores do not hang on whether that is installed.
        self._pixels = _read_processor(CLIPImageProcessorPil, processor)
        self._tokens = _read_processor(AutoTokenizer, processor)
        self._device = device

    @property
    def width(self) -> int:
        """D."""
        return int(self._model.config.projection_dim)

    @property
    def logit_scale(self) -> float:
        return float(self._model.logit_scale.exp())

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Embeddings of length 1, (N, D)."""
        pixels = self._pixels(images=list(images), return_tensors="pt").to(self._device)
        return F.normalize(self._model.get_image_features(**pixels).pooler_output)

    @torch.no_grad()
    def prompts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings of length 1, (N, D); a prompt that is too long is cut short."""
        length = self._model.config.text_config.max_position_embeddings
        tokens = self._tokens(
            list(prompts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        ids, mask = (tokens[name].to(self._device) for name in ("input_ids", "attention_mask"))
        return F.normalize(self._model.get_text_features(ids, mask).pooler_output)

    def cosine(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> Tensor:
        """Of each image with the prompt of the same place: (N,), -1 to 1."""
        return (self.images(images) * self.prompts(prompts)).sum(-1)


def _pickscore(folder: Path, processor: Path, device: torch.device) -> Scorer:
    """arXiv 2305.01569: exp(logit_scale) * cosine."""
    clip = Clip(folder, processor, device)
    return lambda prompts, images: clip.logit_scale * clip.cosine(prompts, images)


def _hpsv2(folder: Path, processor: Path, device: torch.device) -> Scorer:
    """arXiv 2306.09341: the cosine, in hundredths as papers quote it."""
    clip = Clip(folder, processor, device)
    return lambda prompts, images: 100 * clip.cosine(prompts, images)


def _clip_score(folder: Path, processor: Path, device: torch.device) -> Scorer:
    """100 max(cosine, 0): arXiv 2104.08718, eq. 1, with the weight in use today, 100 in place of 2.5."""
    clip = Clip(folder, processor, device)
    return lambda prompts, images: 100 * clip.cosine(prompts, images).clamp(min=0)


def _aesthetic(folder: Path, head: Path, device: torch.device) -> Scorer:
    """LAION's improved aesthetic predictor, fitted to people's ratings from 1 to 10.

    Linear layers on the unit image embedding of a CLIP ViT-L/14; the prompt is not looked at.
    """
    clip = Clip(folder, folder, device)
    layers = _read_head(head, clip.width).to(device)
    return lambda prompts, images: layers(clip.images(images)).squeeze(-1)


@dataclass(frozen=True)
class HubFiles:
    """A commit of a repository on the hub."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repository} at {self.revision[:12]}"


CLIP_L = HubFiles("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41")
CLIP_H = HubFiles("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "1c2b8495b28150b8a4922ee1c8edee224c284c0c")
PICKSCORE = HubFiles("yuvalkirstain/PickScore_v1", "a4e4367c6dfa7288a00c550414478f865b875800")


@dataclass(frozen=True)
class Published:
    """A scorer that has a name here: how its score is formed, and what it is read from."""

    make: Callable[[Path, Path, torch.device], Scorer]
    folder: str
    """What a folder for it holds, said to whoever has none."""
    weights: HubFiles | None = None
    """None: published as a pickle alone, so that somebody has to convert it first."""
    processor: HubFiles | None = None
    """Where the processor lies, if not beside the weights."""


CLIP_FOLDER = "a CLIP model and its processor, as their `save_pretrained` writes them"
PUBLISHED = {
    "pickscore": Published(_pickscore, CLIP_FOLDER, PICKSCORE, processor=CLIP_H),
    "hpsv2": Published(_hpsv2, CLIP_FOLDER),
    "clip": Published(_clip_score, CLIP_FOLDER, CLIP_L),
    "aesthetic": Published(_aesthetic, f"{HEAD}, with the CLIP ViT-L/14 beside it or left to the hub"),
}
HOW = "docs/scorers.md says how to get it."


@dataclass(frozen=True)
class Found:
    """A scorer whose files are here."""

    name: str
    source: str
    """What it is read from, for the report."""
    load: Load


def find(name: str, path: Path | None = None) -> Found:
    """A scorer by its name, its files in `path` or from the hub; or one's own, `package.module:factory`.

    A factory takes the device and returns a Scorer. ValueError says what is missing and where to put it.
    """
    if ":" in name:
        if path is not None:
            raise ValueError(f"{name} finds its own files; leave out --scorer-path for it.")
        return Found(name, name, _own(name))
    if name not in PUBLISHED:
        raise ValueError(
            f"There is no scorer {name!r}. Known: {', '.join(PUBLISHED)}; "
            "or give one of your own as package.module:factory."
        )
    known = PUBLISHED[name]
    if path is None and known.weights is None:
        raise ValueError(
            f"The scorer {name} is not published as safetensors. Give a folder of it with "
            f"--scorer-path {name}=DIR: {known.folder}. {HOW}"
        )
    if path is not None and not path.is_dir():
        raise ValueError(f"There is no folder {path} for the scorer {name}. Put there {known.folder}. {HOW}")
    if name == "aesthetic":
        assert path is not None
        return _find_aesthetic(path)
    if path is not None:
        return Found(name, str(path), lambda device: known.make(path, path, device))
    assert known.weights is not None
    weights = _fetch(name, known.weights, [*CONFIGS, "model.safetensors"])
    processor = _fetch(name, known.processor, CONFIGS) if known.processor else weights
    return Found(name, str(known.weights), lambda device: known.make(weights, processor, device))


def score(scorer: Scorer, prompts: Sequence[str], images: Sequence[Image.Image], *, name: str) -> list[float]:
    """What `scorer` says of each image. ValueError where that is not one finite number an image."""
    try:
        found = torch.as_tensor(scorer(prompts, images))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Somebody else's code.
        raise ValueError(f"The scorer {name} failed: {type(error).__name__}: {first_line(error)}.") from error
    if found.shape != (len(images),):
        raise ValueError(
            f"The scorer {name} must give one score an image, shape ({len(images)},), "
            f"and gave {tuple(found.shape)}."
        )
    if not torch.isfinite(found).all():
        raise ValueError(f"The scorer {name} gave a score that is not finite. Are its weights whole?")
    return [float(value) for value in found]


def _find_aesthetic(path: Path) -> Found:
    head = path / HEAD
    if not head.is_file():
        raise ValueError(f"{path} holds no {HEAD}. {HOW}")
    own = (path / "config.json").is_file()
    clip = path if own else _fetch("aesthetic", CLIP_L, [*CONFIGS, "model.safetensors"])
    source = str(path) if own else f"{path} and {CLIP_L}"
    return Found("aesthetic", source, lambda device: PUBLISHED["aesthetic"].make(clip, head, device))


def _fetch(name: str, files: HubFiles, wanted: list[str]) -> Path:
    try:
        return from_hub(files.repository, files.revision, wanted)
    except ValueError as error:
        raise ValueError(
            f"The scorer {name} cannot be had: {error} With --scorer-path {name}=DIR it is read from "
            f"{PUBLISHED[name].folder}. {HOW}"
        ) from error


def _own(name: str) -> Load:
    module, _, factory = name.partition(":")
    try:
        made = getattr(import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The scorer {name} cannot be imported: {first_line(error)}. "
            "It is package.module:factory, with the package in this folder or on PYTHONPATH."
        ) from error
    if not callable(made):
        raise ValueError(
            f"The scorer {name} is no function. Give one that takes a device and returns a scorer."
        )
    return made  # type: ignore[no-any-return]


def _read(model_class: Any, folder: Path) -> Any:
    """The model in float32, frozen. ValueError where a weight is missing: transformers makes one up."""
    try:
        with quietly():
            model, about = model_class.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # Said below, with its name.
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder} cannot be read as a {model_class.__name__}: {first_line(error)}. "
            f"Its weights must be whole and in safetensors files. {HOW}"
        ) from error
    wrong = [*sorted(about["missing_keys"]), *(name for name, *_ in about["mismatched_keys"])]
    if wrong:
        raise ValueError(
            f"{folder} is no {model_class.__name__}: {len(wrong)} of its weights are missing or of another "
            f"shape than its config.json says, such as {wrong[0]}. {HOW}"
        )
    return model.requires_grad_(False).eval()


def _read_processor(processor_class: Any, folder: Path) -> Any:
    try:
        with quietly():
            return processor_class.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{folder} holds no processor that can be read: {first_line(error)}. "
            f"Put preprocessor_config.json and the tokenizer's files beside the weights. {HOW}"
        ) from error


def _read_head(file: Path, width: int) -> nn.Module:
    """The predictor's layers under the names they were published with: linear, without activations."""
    head = nn.Sequential(
        nn.Linear(width, 1024),
        nn.Dropout(),
        nn.Linear(1024, 128),
        nn.Dropout(),
        nn.Linear(128, 64),
        nn.Dropout(),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
    try:
        weights = {name.removeprefix("layers."): tensor for name, tensor in load_file(file).items()}
        head.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        shape = "1024-128-64-16-1"
        raise ValueError(
            f"{file} does not hold the aesthetic predictor's layers, {width}-{shape}: {_cause(error)}. {HOW}"
        ) from error
    return head.requires_grad_(False).eval()


def _cause(error: BaseException) -> str:
    """torch says in the first line that something is wrong, and in the second what."""
    lines = str(error).strip().splitlines()
    return (lines[1] if len(lines) > 1 else first_line(error)).strip().rstrip(".")
