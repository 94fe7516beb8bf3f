"""Scenes <-> latents. The encoder is closed form (PCA of 4 x 4 patches), the decoder is trained.

Because the encoder needs no training, latents are final from the first minute on: the denoiser may train
while the decoder does, and the decoder may improve later without invalidating the denoiser.
B batch, C H W latent.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from .checkpoints import Checkpoint, running_average, without_prefix
from .files import publish_array
from .scenes import SCENE_PX, load_scenes

log = logging.getLogger(__name__)

PATCH, CHANNELS = 4, 8
RAW_STD = 0.5
"""Root mean square of what the encoder puts out: small, because the decoder begins with tanh(x / 3) * 3."""
ENCODER_WIDTH, DECODER_WIDTH = 48, 32
"""Channels inside; the encoder needs one for each of the 4 x 4 x 3 values of a patch."""


def empty_codec() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(ENCODER_WIDTH,) * 3,
        decoder_block_out_channels=(DECODER_WIDTH,) * 3,
        num_encoder_blocks=(0, 0, 0),
        num_decoder_blocks=(4, 3, 1),
        latent_channels=CHANNELS,
        scaling_factor=1 / RAW_STD,
    )


def codec_with_pca(work: Path) -> AutoencoderTiny:
    """The codec with its encoder in place and a decoder that knows nothing yet."""
    codec = empty_codec()
    mean, basis = _principal_components(work)
    _place_encoder(codec.encoder.layers, mean, basis)
    return codec.requires_grad_(False)


def _principal_components(work: Path) -> tuple[Tensor, Tensor]:
    """Mean (48,) and partly whitened basis (CHANNELS, 48) of the patches of all scenes, values in 0..1.

    Divided by the root of its own spread, a channel keeps some of its weight: with full whitening the
    denoiser spends most of its effort on the finest channels, with none it never learns them.
    """
    images = torch.from_numpy(load_scenes(work).images_SHWC[::17].copy()).permute(0, 3, 1, 2).float() / 255
    patches = F.pixel_unshuffle(images, PATCH).permute(0, 2, 3, 1).reshape(-1, 3 * PATCH * PATCH)
    mean = patches.mean(0)
    variance, vectors = torch.linalg.eigh(torch.cov((patches - mean).T.double()))
    top = torch.arange(len(variance) - 1, len(variance) - 1 - CHANNELS, -1)
    spread = variance[top].sqrt()
    basis = (vectors[:, top] / spread.sqrt()).T
    # Directions of eigenvectors are arbitrary; this makes a rebuild give the same latents.
    basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
    basis = basis * RAW_STD / math.sqrt(float(spread.mean()))
    return mean, basis.float()


def _place_encoder(layers: nn.Sequential, mean: Tensor, basis: Tensor) -> None:
    """Three convolutions that move each pixel of a patch into a channel of its own, then the basis.

    A 3 x 3 kernel of stride 2 and padding 1 sees pixels 2i-1, 2i, 2i+1; taps 1 and 2 are the pixel pair.
    """
    first, half, quarter, last = layers
    for layer in layers:
        layer.weight.data.zero_()
    first.bias.data.zero_()
    first.weight.data[torch.arange(3), torch.arange(3), 1, 1] = 1
    for layer, channels in ((half, 3), (quarter, 12)):
        for out in range(4 * channels):
            channel, corner = divmod(out, 4)
            layer.weight.data[out, channel, 1 + corner // 2, 1 + corner % 2] = 1
    # pixel_unshuffle by 2 and again by 2 orders the patch differently from by 4: find who is where.
    order = F.pixel_unshuffle(F.pixel_unshuffle(torch.arange(48.0).view(1, 3, 4, 4), 2), 2).flatten().long()
    last.weight.data[:, : len(order), 1, 1] = basis[:, order]
    last.bias.data.copy_(-(basis @ mean))


@torch.no_grad()
def encode(codec: AutoencoderTiny, images_BHW3: Tensor) -> Tensor:
    """uint8 images -> latents as the denoiser sees them, about unit spread: (B, 8, 16, 16)."""
    pixels = images_BHW3.permute(0, 3, 1, 2).float() / 127.5 - 1
    return codec.encode(pixels).latents * codec.config.scaling_factor


def all_latents(work: Path) -> np.ndarray:
    """Latents of every scene, float16 (S, C, H, W); cached in `work`/latents.npy."""
    cache = work / "latents.npy"
    if not cache.exists():
        codec, images = codec_with_pca(work), load_scenes(work).images_SHWC
        parts = np.array_split(np.arange(len(images)), 128)
        latents = [encode(codec, torch.from_numpy(images[part])).half().numpy() for part in parts]
        publish_array(cache, np.concatenate(latents))
    return np.load(cache, mmap_mode="r")


def train_decoder(
    work: Path, *, steps: int, batch: int = 16, crop: int = 32, peak_rate: float = 2e-3
) -> None:
    """Learn to decode `steps` batches of random crops, every fourth batch a quarter as many whole scenes.

    A little noise on the latents makes the decoder forgiving to what a denoiser draws.
    """
    codec = codec_with_pca(work)
    decoder = codec.decoder.requires_grad_(True)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=peak_rate, betas=(0.9, 0.99))
    checkpoint = Checkpoint(work / "decoder.pt", decoder=decoder, optimiser=optimiser)
    averaged = running_average(decoder, memory=0.998)
    checkpoint.parts["averaged"] = averaged
    images = load_scenes(work).images_SHWC
    began = time.monotonic()
    for step in range(checkpoint.load(), steps):
        rng = np.random.default_rng(step)
        torch.manual_seed(step)
        whole = step % 4 == 3
        count, side = (batch // 4, SCENE_PX) if whole else (batch, crop)
        pixels = _crops(images, rng, count, side)
        rate = (
            peak_rate
            * min(1, (step + 1) / 200)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        )
        optimiser.param_groups[0]["lr"] = rate
        with torch.no_grad():
            raw = codec.encode(pixels).latents
            raw = raw + torch.randn_like(raw) * RAW_STD * 0.06 * torch.rand(count, 1, 1, 1)
        error = decoder(raw) - pixels
        loss = error.abs().mean() + error.pow(2).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(decoder)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            checkpoint.save(step + 1)
            seconds = time.monotonic() - began
            log.info("decoder step %d of %d, psnr %.2f dB, %.0f s", step + 1, steps, psnr(work), seconds)


def _crops(images: np.ndarray, rng: np.random.Generator, count: int, side: int) -> Tensor:
    """`count` random crops on the patch grid, -1..1, B 3 H W."""
    chosen = rng.integers(len(images), size=count)
    lefts, tops = PATCH * rng.integers((SCENE_PX - side) // PATCH + 1, size=(2, count))
    cut = [
        images[scene, top : top + side, left : left + side]
        for scene, left, top in zip(chosen, lefts, tops, strict=True)
    ]
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 127.5 - 1


def trained_codec(work: Path) -> AutoencoderTiny:
    """The codec with the averaged decoder of the last checkpoint."""
    codec = codec_with_pca(work)
    state = torch.load(work / "decoder.pt", map_location="cpu", weights_only=True)["averaged"]
    codec.decoder.load_state_dict(without_prefix(state))
    return codec


@torch.no_grad()
def psnr(work: Path, count: int = 128) -> float:
    """Peak signal-to-noise ratio in dB over scenes encoded and decoded."""
    codec, images = trained_codec(work), load_scenes(work).images_SHWC
    chosen = np.random.default_rng(0).choice(len(images), count, replace=False)
    pixels = torch.from_numpy(images[np.sort(chosen)]).permute(0, 3, 1, 2).float() / 127.5 - 1
    decoded = torch.cat([codec.decode(codec.encode(part).latents).sample for part in pixels.split(32)])
    return float(-10 * torch.log10(((decoded.clamp(-1, 1) - pixels) / 2).pow(2).mean()))
