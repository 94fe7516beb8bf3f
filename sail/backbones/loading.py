"""A Hugging Face name, a folder or a single file -> a diffusers pipeline. Reads safetensors, never pickles.

Knows no family: the class of the pipeline is given, or its name asked for.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import (
    LDM_VAE_KEYS,
    SingleFileComponentError,
    fetch_diffusers_config,
    infer_diffusers_model_type,
    is_clip_model_in_single_file,
    is_t5_in_single_file,
    load_single_file_checkpoint,
)
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is its client's.
    GatedRepoError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._xet import abort_xet_session
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars, tqdm
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from sail.model_ref import INDEX, ModelRef

CONFIGS = ["*.json", "*.txt", "*.model"]
WEIGHTS = ["*/*.safetensors"]
"""In the folders of a pipeline's parts; what lies beside them is the same again in one file."""
HALF = "fp16"
"""In the names of weights in half precision, which are read where a part has no others."""
NOT_NEEDED = [f"*.{HALF}*", "*.bf16*", "*.non_ema*", "safety_checker/*", "text_encoders/*"]
"""Other forms of the same weights, those in `text_encoders` for ComfyUI; and what nothing here asks."""

OnBytes = Callable[[int, int], None]
"""Hears of a download: bytes that are here, bytes in all."""


def locate(model: ModelRef, told: OnBytes | None = None) -> Path:
    """The folder or file of a model; one of the hub is looked up in its cache or fetched."""
    if Path(model.source).exists():
        return Path(model.source)
    folder = from_hub(model.source, model.revision, CONFIGS + WEIGHTS, told)
    bare = [name for name, _ in _classes(folder) if not any((folder / name).glob("*.safetensors"))]
    if bare:
        halves = [f"{name}/*.{HALF}*.{kind}" for name in bare for kind in ("safetensors", "json")]
        from_hub(model.source, model.revision, halves, told, but=[])
    return folder


BROKEN = (
    OSError, ValueError, KeyError, RuntimeError, SafetensorError, SingleFileComponentError,
    # Of a library that is not here, as where weights are in four bits, and of a class that is gone.
    ImportError, AttributeError, TypeError,
)  # fmt: skip
"""What a model that cannot be read raises."""


def config_folder(location: Path, revision: str | None) -> Path:
    """Where model_index.json lies: for a single file in the folder of its name, or in the hub's cache.

    `revision` is that of the hub's configuration; None takes its newest.
    """
    if location.is_dir():
        return location
    beside = _beside(location)
    if (beside / INDEX).is_file():
        return beside
    try:
        weights = load_single_file_checkpoint(str(location))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{location} cannot be read as safetensors: {first_line(error)}.") from error
    if infer_diffusers_model_type(weights) == "v2" and not _schedule_told(set(weights)):
        raise ValueError(
            f"{location.name} is a Stable Diffusion 2, and nothing in it tells whether it predicts noise, as "
            "2-base and 2.1-base do, or velocity, as 2 and 2.1 do. Put the configuration of its model "
            f"({INDEX} and the folders that it names) into the folder {beside} beside it."
        )
    repository = fetch_diffusers_config(weights)["pretrained_model_name_or_path"]
    try:
        return from_hub(repository, revision, CONFIGS)
    except ValueError as error:
        raise ValueError(
            f"{location.name} brings no configuration. Put that of its model ({INDEX} and the folders that "
            f"it names, as {repository} has them) into the folder {beside} beside it. {error}"
        ) from error


def _beside(file: Path) -> Path:
    """Where what a single file lacks is looked for first."""
    return file.with_suffix("")


def pipeline_name(folder: Path) -> str:
    """Name of the diffusers pipeline that a model is one of."""
    return str(_index(folder).get("_class_name"))


def _index(folder: Path) -> dict[str, Any]:
    """What model_index.json says: of each part its library and its class."""
    try:
        return dict(json.loads((folder / INDEX).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / INDEX} cannot be read: {first_line(error)}.") from error


def read(
    pipeline_class: type[DiffusionPipeline],
    location: Path,
    config: Path,
    dtype: torch.dtype,
    options: dict[str, Any],
) -> DiffusionPipeline:
    """The pipeline on the CPU. ValueError where something is missing or broken."""
    _require_known_libraries(config)
    taken = inspect.signature(pipeline_class.__init__).parameters
    absent = {name: None for name in _absent(config) if name in taken}
    asked = {"dtype": dtype, "local_files_only": True, **absent, **options}
    try:
        with quietly():
            asked |= _from_folder(location, config, dtype)
            if location.is_dir():
                pipeline = pipeline_class.from_pretrained(location, use_safetensors=True, **asked)
            else:
                pipeline = pipeline_class.from_single_file(str(location), config=str(config), **asked)
            _require_all_weights(pipeline)
            if location.is_file() and config != _beside(location):
                _tell_schedule(pipeline, _schedule_told(_keys(location)))
            return pipeline
    except BROKEN as error:
        remedy = "All its parts must be there, their weights whole and in safetensors files."
        if location.is_file():
            remedy = f"Parts that it lacks belong, with their weights, into {_beside(location)}."
        what = f"{location} cannot be loaded as a {pipeline_class.__name__}"
        raise ValueError(f"{what}: {first_line(error)}. {remedy}") from error


def _require_known_libraries(config: Path) -> None:
    """ValueError where a part is of a library of its own: diffusers would import, and run, whatever module
    the index names."""
    for name, kind in _index(config).items():
        library = kind[0] if isinstance(kind, list) and kind else None
        known = library in (None, "diffusers", "transformers") or hasattr(diffusers.pipelines, str(library))
        if not known or (library is not None and (len(kind) != 2 or not isinstance(kind[1], str))):
            raise ValueError(
                f"{config / INDEX} says that {name} is {kind}, and parts are read of classes of diffusers "
                "and transformers alone."
            )


def _absent(config: Path) -> dict[str, None]:
    """Parts that a model says it has not, such as the T5 of an SD3: diffusers wants to be told."""
    return {name: None for name, kind in _index(config).items() if kind == [None, None]}


def _classes(config: Path) -> Iterator[tuple[str, type[Any]]]:
    """Parts that have weights, with their classes in diffusers or transformers."""
    libraries = {"diffusers": diffusers, "transformers": transformers}
    for name, kind in _index(config).items():
        if isinstance(kind, list) and len(kind) == 2 and kind[0] in libraries:
            found = getattr(libraries[kind[0]], kind[1], None)
            if isinstance(found, type) and issubclass(found, nn.Module):
                yield name, found


def _from_folder(location: Path, config: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Parts that are read from the model's folder here, and not by diffusers.

    Of a folder its text encoders, since diffusers does not ask whether they are whole, and what is there in
    half precision alone, since it would read so what is there in both. Of a single file the autoencoder and
    what text encoders it lacks, since diffusers takes few parts from a folder beside it. An autoencoder of
    the file's own gives way to one beside it alone: what else is in the hub's cache is chance.
    """
    keys = _keys(location) if location.is_file() else set()

    def is_read_here(name: str, kind: type[Any]) -> bool:
        if issubclass(kind, PreTrainedModel):
            return not _has(keys, kind)
        if location.is_dir():
            return _is_half(config / name)
        if name != "vae":
            return False
        return config == _beside(location) or not any(key.startswith(tuple(LDM_VAE_KEYS)) for key in keys)

    return {
        name: _part(kind, config / name, dtype)
        for name, kind in _classes(config)
        if any((config / name).glob("*.safetensors")) and is_read_here(name, kind)
    }


def _keys(file: Path) -> set[str]:
    with safe_open(file, "pt") as opened:
        return set(opened.keys())


def _schedule_told(keys: set[str]) -> dict[str, Any]:
    """What a single file says of its noise schedule, in keys of no weight that ComfyUI reads too."""
    if "v_pred" not in keys:
        return {}
    told: dict[str, Any] = {"prediction_type": "v_prediction"}
    if "ztsnr" in keys:
        told |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return told


def _tell_schedule(pipeline: DiffusionPipeline, told: dict[str, Any]) -> None:
    """Put what a single file says into the scheduler's configuration, which is of the hub.

    diffusers finds that by the shapes of weights, which are the same whatever is predicted.
    """
    if told:
        config = {**pipeline.scheduler.config, **told}
        # What a configuration leaves to its class is left out where another class reads it.
        config["_use_default_values"] = set(config.get("_use_default_values", ())) - told.keys()
        pipeline.scheduler = type(pipeline.scheduler).from_config(config)


def _has(keys: set[str], kind: type[PreTrainedModel]) -> bool:
    """Whether a single file with these keys has a text encoder of its kind, as diffusers finds one there."""
    is_t5 = kind.__name__ == "T5EncoderModel" and is_t5_in_single_file(keys)
    return is_t5 or is_clip_model_in_single_file(kind, keys)


def _is_half(folder: Path) -> bool:
    """Whether weights lie in the folder of a part, in half precision alone."""
    names = [file.name for file in folder.glob("*.safetensors")]
    return bool(names) and all(f".{HALF}" in name for name in names)


def _part(kind: type[Any], folder: Path, dtype: torch.dtype) -> nn.Module:
    asked: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    if _is_half(folder):
        asked["variant"] = HALF
    part, report = kind.from_pretrained(folder, output_loading_info=True, **asked)
    if issubclass(kind, PreTrainedModel) and report["missing_keys"]:
        # transformers makes up what is missing, by lot.
        raise ValueError(_lacking(folder.name, report["missing_keys"]))
    return part


def _require_all_weights(pipeline: DiffusionPipeline) -> None:
    """ValueError where diffusers left weights empty, as it does with those that it misses."""
    for name, part in pipeline.components.items():
        if isinstance(part, PreTrainedModel):
            # A T5's file has its embedding once, and in two places it is to be.
            part.tie_weights()
        if isinstance(part, nn.Module):
            empty = [key for key, weight in part.named_parameters() if weight.is_meta]
            if empty:
                raise ValueError(_lacking(name, empty))


def _lacking(name: str, missing: Iterable[str]) -> str:
    first, *others = sorted(missing)
    return f"{name} lacks {1 + len(others)} of its weights, {first}{' and others' if others else ''}"


def from_hub(
    repository: str,
    revision: str | None,
    wanted: Sequence[str],
    told: OnBytes | None = None,
    *,
    but: Sequence[str] = NOT_NEEDED,
) -> Path:
    """A snapshot, with bars on a terminal. huggingface_hub finds the token: HF_TOKEN, or a login's."""
    at = f"{repository} at {revision}" if revision else repository
    objections: list[BaseException] = []
    try:
        found = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(wanted),
            ignore_patterns=list(but),
            tqdm_class=_bar(told, objections) if told else None,
        )
    except GatedRepoError as error:
        raise ValueError(
            f"The model {repository} is gated. Accept its terms on its page at the hub and log in with that "
            "account on this machine (hf auth login), or start again with its token in HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"The hub has no model {repository}, or shows it to members only. "
            "Check the name, or log in as a member on this machine (hf auth login)."
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{repository} has no revision {revision}. Give a commit of its history.") from error
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"The model {at} is not whole on this machine and the hub could not be asked. "
            "Allow the download (in the app: Setup, Where the model is), try again with a connection, "
            "or give the folder of a downloaded model."
        ) from error
    except (OSError, ValueError, HTTPError) as error:
        raise ValueError(
            f"The model {at} could not be had from the hub: {first_line(error)}. "
            "Give the folder of a downloaded model instead."
        ) from error
    except RuntimeError:
        if objections:
            raise objections[0] from None
        raise
    return Path(found)


def _bar(told: OnBytes, objections: list[BaseException]) -> type[tqdm]:
    """The bars of huggingface_hub, of which `told` hears as well, on a terminal or not.

    What `told` raises ends the download and is among the objections.
    """
    lock = Lock()

    class Bar(tqdm):
        def __init__(self, *positional: Any, **named: Any) -> None:
            # One of three: the others count files, and bytes in the form in which they travel.
            self._counts = named.get("name") == "huggingface_hub.snapshot_download"
            self._here = 0
            super().__init__(*positional, **named)

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self._counts:
                # From several threads, each with a file.
                with lock:
                    self._here += int(n or 0)
                    try:
                        told(self._here, int(self.total or 0))
                    except BaseException as objection:
                        objections.append(objection)
                        # Xet, by which large files come, prints what is raised here and goes on.
                        abort_xet_session()
                        raise
            return shown

    return Bar


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def quietly() -> Iterator[None]:
    """Without the notes and bars of two libraries; the bars of a later download are left as they were."""
    silent_before = are_progress_bars_disabled()
    for library in (diffusers_logging, transformers_logging):
        # What goes wrong is raised, and said once.
        library.set_verbosity(logging.CRITICAL)
        library.disable_progress_bar()
    try:
        yield
    finally:
        # transformers switches off those of downloads as well.
        if not silent_before:
            enable_progress_bars()
