"""Train the two attribute readers on disjoint halves of the scenes. Knows no prompt and no denoiser."""

# N images, S scenes, H W pixels

import json
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from safetensors.torch import save
from torch import Tensor

from .codec import RAW_STD, trained_codec
from .files import publish, publish_text
from .readers import READERS, AttributeReader
from .scenes import Scenes, halves, load_scenes
from .words import CLASSES

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]
LATENT_NOISE = 0.15
"""Of the latents' spread, before decoding: what a denoiser gets wrong, roughly."""
SHIFT_PX = 3


class Examples(NamedTuple):
    """images_NHWC uint8, attributes_N4 class numbers in the order of words.CLASSES."""

    images_NHWC: Array
    attributes_N4: Array


@torch.no_grad()
def decode_noisy(codec: AutoencoderTiny, images_NHWC: Array, *, noise_seed: int) -> Array:
    """The images encoded, their latents made a little noisy, and decoded; uint8."""
    draw = torch.Generator().manual_seed(noise_seed)
    decoded = []
    for part in np.array_split(images_NHWC, max(1, len(images_NHWC) // 64)):
        raw = codec.encode(torch.from_numpy(part).permute(0, 3, 1, 2) / 127.5 - 1).latents
        strength = RAW_STD * LATENT_NOISE * torch.rand(len(part), 1, 1, 1, generator=draw)
        raw = raw + strength * torch.randn(raw.shape, generator=draw)
        pixels = codec.decode(raw).sample.add(1).mul(127.5).clamp(0, 255).round()
        decoded.append(pixels.permute(0, 2, 3, 1).byte().numpy())
    return np.concatenate(decoded)


def augmented(pixels_N3HW: Tensor) -> Tensor:
    """Shifted a little, half of them blurred, all with noise and another shade."""
    count, _, side, _ = pixels_N3HW.shape
    padded = F.pad(pixels_N3HW, (SHIFT_PX,) * 4, mode="replicate")
    top, left = torch.randint(2 * SHIFT_PX + 1, (2,)).tolist()
    pixels = padded[:, :, top : top + side, left : left + side]
    blurred = F.avg_pool2d(F.pad(pixels, (1,) * 4, mode="replicate"), 3, stride=1)
    pixels = torch.lerp(pixels, blurred, torch.rand(count, 1, 1, 1) * (torch.rand(count, 1, 1, 1) < 0.5))
    pixels = pixels + 0.05 * torch.randn(count, 3, 1, 1)
    return pixels + 0.1 * torch.rand(count, 1, 1, 1) * torch.randn_like(pixels)


def train_reader(examples: Examples, *, passes: int, noise_seed: int, batch: int = 64) -> AttributeReader:
    """A reader from random weights, trained `passes` times over the examples."""
    torch.manual_seed(noise_seed)
    reader = AttributeReader({name: list(names) for name, names in CLASSES.items()})
    optimiser = torch.optim.AdamW(reader.parameters(), lr=3e-3, weight_decay=0.02)
    count = len(examples.images_NHWC)
    batches = count // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=passes * batches)
    for done in range(passes):
        began, losses = time.monotonic(), []
        for part in np.array_split(torch.randperm(count).numpy(), batches):
            pixels_N3HW = torch.from_numpy(examples.images_NHWC[part]).permute(0, 3, 1, 2) / 127.5 - 1
            logits = reader(augmented(pixels_N3HW))
            right_N4 = torch.from_numpy(examples.attributes_N4[part])
            loss = torch.stack(
                [F.cross_entropy(each, right_N4[:, i]) for i, each in enumerate(logits.values())]
            ).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        seconds = time.monotonic() - began
        log.info("reader: pass %d of %d, loss %.4f, %.0f s", done + 1, passes, np.mean(losses), seconds)
    return reader.eval()


def share_right(reader: AttributeReader, examples: Examples) -> dict[str, float]:
    """Attribute -> share of the examples whose most probable class is the true one."""
    parts = np.array_split(examples.images_NHWC, max(1, len(examples.images_NHWC) // 256))
    read = [reader.read(torch.from_numpy(part)) for part in parts]
    best = {name: torch.cat([each[name].argmax(1) for each in read]).numpy() for name in CLASSES}
    return {
        name: float((best[name] == examples.attributes_N4[:, i]).mean()) for i, name in enumerate(CLASSES)
    }


def examples_of(
    scenes: Scenes, numbers: Array, codec: AutoencoderTiny, *, decoded_share: int
) -> tuple[Examples, Examples]:
    """The scenes of these numbers as composed, and one in `decoded_share` of them as decoded."""
    composed = Examples(scenes.images_SHWC[numbers], scenes.attributes_S4[numbers])
    # Shuffled first: numbers run through the attributes in order.
    some = np.random.default_rng(0).permutation(len(numbers))[: len(numbers) // decoded_share]
    decoded = decode_noisy(codec, composed.images_NHWC[some], noise_seed=0)
    return composed, Examples(decoded, composed.attributes_N4[some])


def joined(*parts: Examples) -> Examples:
    return Examples(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def build_readers(work: Path, folder: Path, *, passes: int) -> None:
    """Write the readers, their class names and how often they are right on held-out scenes to `folder`."""
    if (folder / "accuracy.json").exists():
        return
    scenes, codec = load_scenes(work), trained_codec(work)
    *own, held_out = halves(scenes.attributes_S4)
    composed_out, decoded_out = examples_of(scenes, held_out, codec, decoded_share=4)
    publish_text(folder / "classes.json", json.dumps(CLASSES, indent=1) + "\n")
    accuracy = {}
    for noise_seed, (name, half) in enumerate(zip(READERS, own, strict=True)):
        composed, decoded = examples_of(scenes, half, codec, decoded_share=4)
        reader = train_reader(joined(composed, decoded, decoded), passes=passes, noise_seed=noise_seed)
        weights = {
            key: each.half() if each.is_floating_point() else each
            for key, each in reader.state_dict().items()
        }
        publish(folder / f"{name}.safetensors", save(weights))
        shipped = AttributeReader.load(name, folder)
        accuracy[name] = {
            "composed": share_right(shipped, composed_out),
            "decoded": share_right(shipped, decoded_out),
        }
        log.info("%s reader on held-out scenes: %s", name, accuracy[name])
    publish_text(folder / "accuracy.json", json.dumps(accuracy, indent=1) + "\n")
