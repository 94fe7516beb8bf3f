"""An export run: the adapter for other tools, with a model card. Knows no optimiser."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from sail import __version__, backbones
from sail.files import publish, publish_folder, publish_text, sha256_file
from sail.model_ref import HUB_ID
from sail.policy import canonical
from sail.progress import Progress
from sail.requests import ExportRequest
from sail.runfolder import ADAPTER_FILE, MERGED_FOLDER, RunFolder

CONFIG = "lora_adapter_metadata"
"""Where a LoRA's file has its configuration in its metadata, as diffusers reads it: `unet.lora_alpha`, ..."""

ONLY_IN_SDXL = ".transformer_blocks.1."
"""In names of a UNet's modules: where Stable Diffusion attends it has one such block, SDXL up to ten."""
MERGED = f"""
`{MERGED_FOLDER}`, beside this file where it was written, is the whole pipeline with the LoRA in its weights,
in float32. Read in bfloat16 it can lose most of what the LoRA adds, where the base model's own weights are
bfloat16: load the LoRA beside them there.
"""


def export(folder: RunFolder, request: ExportRequest, progress: Progress) -> dict[str, object]:
    """Write export/: the LoRA for diffusers and other tools, its card, and on request the merged pipeline."""
    began = time.monotonic()
    progress.stage("export", 3 if request.merged else 2)
    out = folder.path / "export"
    source = folder.adapter_input(request.adapter)
    # Everything is written anew, and of what a killed export left nothing is to be listed.
    shutil.rmtree(out, ignore_errors=True)
    (out / "lora").mkdir(parents=True)
    weights = _publish_lora(source / ADAPTER_FILE, out / "lora" / ADAPTER_FILE)
    is_unet = all(name.startswith("unet.") for name in weights)
    if is_unet:
        publish(out / kohya_file(request), lambda beside: save_file(in_kohya_names(weights), beside))
    progress.advance()
    if request.merged:
        _write_merged(request, source, out / MERGED_FOLDER, progress)
        progress.advance()
    is_sdxl = is_unet and any(ONLY_IN_SDXL in name for name in weights)
    publish_text(out / "README.md", model_card(request, is_unet=is_unet, is_sdxl=is_sdxl))
    progress.advance()
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {
        "files": [
            {
                "path": str(path.relative_to(folder.path)),
                "bytes": path.stat().st_size,
                "sha256": sha256_file(path),
            }
            for path in files
        ],
        "seconds": round(time.monotonic() - began, 2),
    }


def _publish_lora(source: Path, target: Path) -> dict[str, Tensor]:
    """Publish the LoRA with alpha / rank folded into its weights, and return these.

    alpha stands in the file's metadata alone. Who does not read that takes it for the rank, so it becomes the
    rank; where it is, the file stays the same to the byte.
    """
    with safe_open(source, "pt") as file:
        metadata = file.metadata() or {}
    weights = load_file(source)
    config = json.loads(metadata.get(CONFIG, "{}"))
    part = next(iter(weights)).partition(".")[0]
    rank = config.get(f"{part}.r")
    scale = config[f"{part}.lora_alpha"] / rank if rank else 1
    if scale == 1:
        publish(target, lambda beside: shutil.copyfile(source, beside) and None)
        return weights
    weights = {name: scale * tensor if ".lora_B." in name else tensor for name, tensor in weights.items()}
    metadata[CONFIG] = json.dumps({**config, f"{part}.lora_alpha": rank}, indent=2, sort_keys=True)
    publish(target, lambda beside: beside.write_bytes(canonical(save(weights, metadata))) and None)
    return weights


def kohya_file(request: ExportRequest) -> str:
    """`demo-round-1.safetensors` of "demo, round 1": those tools keep all LoRAs in one folder."""
    return "-".join(re.findall(r"[\w.]+", request.title)) + ".safetensors"


def in_kohya_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A UNet's LoRA as ComfyUI and AUTOMATIC1111 look for it, with alpha as the rank.

    `unet.mid_block.resnets.0.conv1.lora_A.weight` is `lora_unet_mid_block_resnets_0_conv1.lora_down.weight`
    there; of most of its modules they know no other name.
    """
    named = {}
    for name, tensor in weights.items():
        module, _, side = name.rpartition(".lora_")
        module = "lora_" + module.replace(".", "_")
        if side == "B.weight":
            named[f"{module}.lora_up.weight"] = tensor
        else:
            named[f"{module}.lora_down.weight"] = tensor
            named[f"{module}.alpha"] = torch.tensor(float(len(tensor)))
    return named


def _write_merged(request: ExportRequest, adapter: Path, target: Path, progress: Progress) -> None:
    building = target.with_name(f".{target.name}.new")
    # Whatever it was trained in: in bfloat16 most of what an adapter adds is less than a weight's last bit.
    model = request.model.model_copy(update={"precision": "float32"})
    backbones.load(model, torch.device("cpu"), told=progress.download).save_merged(adapter, building)
    publish_folder(building, target)


def model_card(request: ExportRequest, *, is_unet: bool, is_sdxl: bool = False) -> str:
    """What it is, how to use it, and every figure that is known about it."""
    for_diffusers = f"lora/{ADAPTER_FILE}"
    for_ui = kohya_file(request) if is_unet else for_diffusers
    merged = MERGED if request.merged else ""
    tools = "ComfyUI and AUTOMATIC1111" if is_unet else "ComfyUI"
    if is_unet and not is_sdxl:
        # Of SDXL's modules kohya's own tools know Stability's names, not diffusers'.
        tools = "ComfyUI, AUTOMATIC1111 and others that read kohya's names"
    facts = "\n".join(
        f"| {name} | {_shown(value)} |" for name, value in {"round": request.round, **request.facts}.items()
    )
    # A folder's full path would tell strangers about a machine and help nobody; its name is what counts.
    # A folder that was moved is none of the hub's either.
    is_local = Path(request.model.source).exists() or not HUB_ID.fullmatch(request.model.source)
    model = Path(request.model.source).name if is_local else request.model.source
    base = model + (f" at {request.model.revision}" if request.model.revision else "")
    revision = f', revision="{request.model.revision}"' if request.model.revision else ""
    where = "  # wherever the base model lies" if is_local else ""
    pipeline, read = "DiffusionPipeline", "from_pretrained"
    if Path(request.model.source).is_file():
        pipeline, read = backbones.pipeline_name(request.model), "from_single_file"
    scheduler, told = backbones.scheduler_of(request.model, request.sampling, is_unet=is_unet)
    call = _arguments(backbones.call_of(request.model, request.sampling))
    on_hub = "" if is_local else f"base_model: {model}\n"
    return f"""---
library_name: diffusers
pipeline_tag: text-to-image
{on_hub}tags: [lora, text-to-image, diffusers, preference-alignment, sail]
---

# {request.title}

A LoRA for `{base}`, aligned with people's choices by SAIL {__version__}
(arXiv 2602.05380): {_how(request)}.

```python
from diffusers import {pipeline}, {scheduler}

pipeline = {pipeline}.{read}("{"path/to/" if is_local else ""}{model}"{revision}){where}
pipeline.load_lora_weights("lora")  # the folder beside this file
# The solver, steps and guidance that its own images were drawn with.
pipeline.scheduler = {scheduler}.from_config(
    pipeline.scheduler.config, {_arguments(told)}
)
image = pipeline("what to draw", {call}).images[0]
image.save("image.png")
```

| tool | file |
|---|---|
| diffusers | `{for_diffusers}` |
| {tools} | `{for_ui}`, into their folder of LoRAs |
{merged}
| what | figure |
|---|---|
| sha256 of the adapter as it was trained | `{request.adapter}` |
{facts}

It repeats the preferences of the people who labelled; they are a sample of nobody else.
"""


def _arguments(named: Mapping[str, Any]) -> str:
    """As they stand in a call of Python."""
    quoted = {name: f'"{value}"' if isinstance(value, str) else value for name, value in named.items()}
    return ", ".join(f"{name}={value}" for name, value in quoted.items())


def _how(request: ExportRequest) -> str:
    if request.round == 0:
        return "it learned from human choices"
    return (
        "a round that learns from human choices, then rounds that may also learn\n"
        "from pairs of the model's own images (the self pairs below are those of the last one)"
    )


def _shown(value: str | int | float | bool | None) -> str:
    if value is None:
        return "not measured"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
