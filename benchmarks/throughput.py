"""How fast training, drawing and judging are, against a loop that computes everything in every step.

    python -m benchmarks.throughput --model data/starter --device cpu --json
    python -m benchmarks.throughput --device cuda --batch 8
    python -m benchmarks.throughput --device cuda --batch 8 --compiled
    python -m benchmarks.throughput --model DIR --peer train_diffusion_dpo.py
    python -m benchmarks.throughput --device cuda --batch 8 --shapes sd15-512 --peer train_diffusion_dpo.py
    python -m benchmarks.throughput --model data/starter --predict

Both train the same LoRA on the same pairs with the same optimiser, precision and batch, in turns within one
process, with the loss of Diffusion-DPO. The plain loop does in each step what public scripts of it do: encode
images and prompts, ask policy and reference, read the figures. Ours trains as a self-annotated round does:
latents and embeddings are ready, human and self pairs are mixed as the model's settings say, and self pairs
are learned from on the draws that they were judged on, whose reference errors the judge knows
(`--self-pair-draws new`: new draws in every step).

Seconds on a CPU are those that this process computed, so that other programs do not count. `--predict` times
a train and a propose run, reckons two of twice the size from them as the app does, and then times those.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from operator import truediv
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.shapes import SHAPES, backbone_of_shape
from sail import backbones, cost
from sail.backbones import Backbone
from sail.backbones.base import take
from sail.batches import Batch, PairData
from sail.candidates import decoded, save_png
from sail.config import Lora, Loss, Monitoring, Optimisation, Sampling
from sail.judged import JudgedDraws
from sail.model_ref import ModelRef
from sail.policy import Policy
from sail.progress import Progress
from sail.records import LatentsRef, TrainingPair
from sail.requests import ProposeRequest, TrainRequest
from sail.reward import bank_of, draw_errors, gains
from sail.runfolder import RunFolder
from sail.running import execute
from sail.sampling import draw
from sail.settings import LoopSettings
from sail.training import Trainer

PROMPTS = (
    "a fox",
    "a red house on a hill",
    "a small boat",
    "a lamp in the rain",
    "an owl",
    "a bowl of fruit",
    "a train",
    "a tree in winter",
)


@dataclass(frozen=True)
class Pixels:
    """Pairs as a public script has them: files and captions."""

    prompts: list[str]
    files: list[tuple[Path, Path]]


class Clock:
    """Seconds that the device took for something, waiting for its end."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"

    def seconds(self, do: Callable[[], object]) -> float:
        began = self._now()
        do()
        return self._now() - began

    def _now(self) -> float:
        if not self._on_gpu:
            return time.process_time() / torch.get_num_threads()
        torch.cuda.synchronize()
        return time.perf_counter()


def encoded(backbone: Backbone, images_B3HW: Tensor) -> Tensor:
    """Latents of pixels in -1 to 1."""
    vae: Any = backbone._pipeline.vae  # type: ignore[attr-defined]
    with torch.no_grad():
        found = vae.encode(images_B3HW.to(backbone.device, vae.dtype))
    latents = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
    return (latents.float() - (vae.config.get("shift_factor") or 0.0)) * vae.config.scaling_factor


def pixels_of(file: Path) -> Tensor:
    image = np.asarray(Image.open(file).convert("RGB"), np.float32)
    return torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1


class PlainLoop:
    """A step of the public scripts: encode pixels and text, policy, reference, loss, optimiser, figures."""

    def __init__(self, policy: Policy, pixels: Pixels, request: TrainRequest) -> None:
        self.policy, self._pixels, self._request = policy, pixels, request
        self._parameters = list(policy.parameters().values())
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=request.optimisation.learning_rate, weight_decay=0.0
        )

    def step(self, pairs: Sequence[int]) -> dict[str, float]:
        """One step on these pairs, on new draws."""
        backbone, count = self.policy.backbone, len(pairs)
        latents_2P = self._latents(pairs)
        shape = latents_2P.shape[1:]
        noise_P = torch.randn((count, *shape), device=backbone.device)
        drawn_P = torch.randint(0, backbone.num_train_timesteps, (count,), device=backbone.device)
        timesteps_P = backbone.timesteps(drawn_P, shape)
        loss, figures = self._loss(latents_2P, noise_P.repeat(2, 1, 1, 1), timesteps_P.repeat(2), pairs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._request.optimisation.max_grad_norm)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return {name: value.item() for name, value in figures.items()}

    def loss_on(self, batch: Batch, pairs: Sequence[int], prompts: Sequence[str]) -> float:
        """The loss on our draws, with latents and embeddings made anew."""
        latents_2P = self._latents(pairs)
        return float(self._loss(latents_2P, batch.noise_2P, batch.timesteps_2P, pairs, prompts)[0].detach())

    def _latents(self, pairs: Sequence[int]) -> Tensor:
        files = [self._pixels.files[pair][side] for side in (0, 1) for pair in pairs]
        return encoded(self.policy.backbone, torch.stack([pixels_of(file) for file in files]))

    def _loss(
        self,
        latents_2P: Tensor,
        noise_2P: Tensor,
        timesteps_2P: Tensor,
        pairs: Sequence[int],
        prompts: Sequence[str] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        backbone = self.policy.backbone
        told = prompts or [self._pixels.prompts[pair] for pair in pairs]
        conditioning_2P = take(backbone.encode_prompts(told), [*range(len(pairs)), *range(len(pairs))])
        noisy = backbone.noisy(latents_2P, noise_2P, timesteps_2P)
        target = backbone.target(latents_2P, noise_2P, timesteps_2P)
        own = backbone.predict(noisy, timesteps_2P, conditioning_2P)
        own_2P = F.mse_loss(own, target, reduction="none").mean(dim=(1, 2, 3))
        with self.policy.acting_as("base"):
            frozen = backbone.predict(noisy, timesteps_2P, conditioning_2P)
            frozen_2P = F.mse_loss(frozen, target, reduction="none").mean(dim=(1, 2, 3))
        own_winner_P, own_loser_P = own_2P.chunk(2)
        frozen_winner_P, frozen_loser_P = frozen_2P.chunk(2)
        ahead_P = (frozen_winner_P - frozen_loser_P) - (own_winner_P - own_loser_P)
        loss = -F.logsigmoid(0.5 * self._request.loss.beta * ahead_P).mean()
        accuracy = (ahead_P > 0).float().mean()
        return loss, {
            "loss": loss.detach(),
            "own": own_2P.detach().mean(),
            "frozen": frozen_2P.mean(),
            "accuracy": accuracy,
        }


@dataclass(frozen=True)
class Bench:
    """Both loops on one model, and what they share."""

    backbone: Backbone
    plain_backbone: Backbone
    model: ModelRef
    settings: LoopSettings
    asked: argparse.Namespace
    folder: Path

    def request(self) -> TrainRequest:
        return TrainRequest(
            model=self.model,
            lora=self.settings.lora,
            loss=Loss(beta=self.settings.loss.beta),
            mixup=self.settings.mixup,
            optimisation=Optimisation(
                steps=self.asked.steps,
                batch_pairs=self.asked.batch,
                # What the plain loop has; memory that runs out halves it.
                micro_batch_pairs=self.asked.batch,
                learning_rate=1e-4,
                self_pair_draws=self.asked.self_pair_draws,
            ),
            scoring=self.settings.scoring,
            # That of every step is written once, at the end.
            monitoring=Monitoring(preview_prompts=0),
            sampling=self.settings.sampling,
        )

    def pixels(self) -> Pixels:
        """Two images a pair, as files: decoded from latents of noise. Human pairs, then self pairs."""
        shape = self.backbone.latent_shape(self.settings.sampling.size)
        generator = torch.Generator().manual_seed(0)
        prompts, files = [], []
        for pair in range(self.asked.pairs + self.asked.self_pairs):
            images = decoded(Policy(self.backbone), 0.5 * torch.randn(2, *shape, generator=generator), 1)
            both = tuple(self.folder / f"pair-{pair}-{side}.png" for side in (0, 1))
            for image, file in zip(images, both, strict=True):
                save_png(image, file)
            prompts.append(f"{PROMPTS[pair % len(PROMPTS)]} {pair // len(PROMPTS)}")
            files.append((both[0], both[1]))
        return Pixels(prompts, files)

    def data(self, pixels: Pixels) -> PairData:
        """What a train run has in memory, the judge's draws of self pairs with it."""
        both = [torch.stack([pixels_of(file) for file in files]) for files in pixels.files]
        latents = [encoded(self.backbone, images).cpu() for images in both]
        human, pairs = self.asked.pairs, range(len(both))
        judged = pairs[human:] if self.request().reuses_judged_draws else ()
        conditioning = self.backbone.encode_prompts([*pixels.prompts, ""])
        return PairData(
            latents=latents,
            prompt_rows=list(pairs),
            conditioning={name: rows.cpu() for name, rows in conditioning.items()},
            sides={"human": list(pairs[:human]), "self": list(pairs[human:]), "tie": []},
            human=[],
            open=[],
            known={pair: self.judged(pixels.prompts[pair], latents[pair]) for pair in judged},
        )

    def judged(self, prompt: str, latents_2CHW: Tensor) -> JudgedDraws:
        """What the judge leaves of a pair: base's errors on its draws."""
        backbone, scoring = self.backbone, self.settings.scoring
        shape = backbone.latent_shape(self.settings.sampling.size)
        bank = bank_of(prompt, 2, shape, backbone.num_train_timesteps, scoring)
        asked = (latents_2CHW, backbone.encode_prompts([prompt]), bank)
        error_2K = draw_errors(Policy(backbone), "base", *asked, chunk=self.asked.batch)
        return JudgedDraws(prompt, scoring, list(zip(*error_2K.tolist(), strict=True)))

    def trainer(self, policy: Policy, data: PairData) -> Trainer:
        request = self.request()
        folder = RunFolder.create(tempfile.mkdtemp(dir=self.folder) + "/run", request)
        return Trainer(folder, request, policy, "base", data)


def trainable(backbone: Backbone, lora: Lora) -> Policy:
    policy = Policy(backbone)
    policy.add_trainable(lora, noise_seed=0)
    return policy


def measured(bench: Bench) -> dict[str, Any]:
    """All figures of one model: rates, ratios, the largest difference of losses."""
    # The public scripts leave the text encoders on the device, and encode images in batches.
    bench.plain_backbone._pipeline.vae.disable_slicing()  # type: ignore[attr-defined]
    with bench.plain_backbone.encoding():
        return _measured(bench)


def _measured(bench: Bench) -> dict[str, Any]:
    asked, clock = bench.asked, Clock(bench.backbone.device)
    pixels = bench.pixels()
    data, lora = bench.data(pixels), bench.settings.lora
    ours = trainable(bench.backbone, lora)
    if asked.compiled:
        bench.backbone.denoiser.compile()
    plain = PlainLoop(trainable(bench.plain_backbone, lora), pixels, bench.request())
    difference = largest_difference(bench, ours, plain, pixels, data)

    trainer = bench.trainer(ours, data)
    progress = Progress(RunFolder(bench.folder))
    some = [n % len(pixels.files) for n in range(asked.batch)]
    # Once outside of time: buffers, kernels, files. Ours has made three steps already.
    plain.step(some)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    peak: dict[str, float] = {}
    for block in range(0, asked.steps, asked.block):
        count = min(asked.block, asked.steps - block)
        turns = [
            ("ours", lambda: trainer.advance(progress)),
            ("plain", lambda: plain.step(some)),
        ]
        for name, step in turns if (block // asked.block) % 2 else reversed(turns):
            if bench.backbone.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = clock.seconds(lambda step=step, count=count: [step() for _ in range(count)])
            rates[name].append(count * asked.batch / seconds)
            peak[name] = max(peak.get(name, 0.0), peak_memory_mib(bench.backbone.device))
    pairs = asked.steps * asked.batch
    distilled = bench.backbone.distilled
    seen = cost.reference_pairs(
        bench.request(), human_pairs=asked.pairs, self_pairs=asked.self_pairs, distilled=distilled
    )
    reference_share = seen / pairs
    encoding = encoding_cost(bench, pixels)
    speedup = speedup_over_plain(encoding, reference_share=reference_share)
    candidates = candidates_per_second(bench, ours, plain.policy, clock)
    return {
        "train_pairs_per_s": {name: round(median(own), 3) for name, own in rates.items()},
        # In turns, so that a machine that is slow for a while is so for both.
        "train_ratio": round(median(map(truediv, rates["ours"], rates["plain"])), 3),
        "predicted_ratio": round(speedup, 3),
        "self_pair_draws": asked.self_pair_draws,
        "self_fraction": bench.settings.mixup.self_fraction,
        "reference_share": round(reference_share, 3),
        "encoding_cost": {"image": round(encoding.image, 4), "prompt": round(encoding.prompt, 4)},
        "largest_loss_difference": difference,
        "candidates_per_s": round(candidates.drawn, 3),
        "candidates_by_pipeline_per_s": round(candidates.by_pipeline, 3),
        "scored_per_s": round(candidates.scored, 3),
        "peak_memory_mib": {name: round(value) for name, value in peak.items()},
    }


def largest_difference(bench: Bench, ours: Policy, plain: PlainLoop, pixels: Pixels, data: PairData) -> float:
    """Of the two losses on the same draws, over three steps on which ours has learned something already."""
    trainer = bench.trainer(ours, data)
    progress = Progress(RunFolder(bench.folder))
    found = []
    for step in range(3):
        with torch.no_grad():
            for mine, other in zip(ours.parameters().values(), plain._parameters, strict=True):
                other.copy_(mine)
        batch = trainer._batches.at(step)
        told = [[*pixels.prompts, ""][row] for row in batch.prompt_rows]
        other = plain.loss_on(batch, trainer._batches.pairs_at(step), told)
        trainer.advance(progress)
        found.append(abs(float(trainer._unread[-1][0]) - other))
    return max(found)


class Encoding(NamedTuple):
    """What a model's encoders cost, in denoiser evaluations of one image."""

    image: float
    """Of pixels, once an image."""
    prompt: float


def speedup_over_plain(encoding: Encoding, *, reference_share: float = 1.0) -> float:
    """Of a training step over one that encodes two images and a prompt of each pair every time.

    `reference_share`: of the pairs that are drawn, those that the reference sees.
    """
    plain = 2 * (1 + cost.FORWARD_AND_BACKWARD) + 2 * encoding.image + encoding.prompt
    return plain / (2 * (reference_share + cost.FORWARD_AND_BACKWARD))


def encoding_cost(bench: Bench, pixels: Pixels) -> Encoding:
    """Counted operations of the encoders, by those of the denoiser for one image."""
    backbone = bench.backbone
    image = pixels_of(pixels.files[0][0])[None]
    conditioning = backbone.encode_prompts(pixels.prompts[:1])
    latents = encoded(backbone, image)
    timesteps = backbone.timesteps(torch.tensor([500], device=backbone.device), latents.shape[1:])
    with torch.no_grad():
        evaluation = operations(lambda: backbone.predict(latents, timesteps, conditioning))
        return Encoding(
            image=operations(lambda: encoded(backbone, image)) / evaluation,
            prompt=operations(lambda: backbone.encode_prompts(pixels.prompts[:1])) / evaluation,
        )


def operations(do: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        do()
    return counter.get_total_flops()


class Candidates(NamedTuple):
    """A second; medians of three turns."""

    drawn: float
    """Drawn and decoded."""
    scored: float
    """Drawn, decoded and judged."""
    by_pipeline: float
    """Drawn and decoded by a call of the model's own pipeline, all in one batch as ours."""


def candidates_per_second(bench: Bench, ours: Policy, plain: Policy, clock: Clock) -> Candidates:
    asked, sampling, scoring = bench.asked, bench.settings.sampling, bench.settings.scoring
    count = asked.prompts * asked.candidates
    pipeline, dtype = pipeline_of(plain.backbone, sampling), plain.backbone._dtype  # type: ignore[attr-defined]
    height, width = sampling.size or (None, None)
    found: list[Tensor] = []

    def propose(prompts: Sequence[str]) -> None:
        found.clear()
        for drawn in draw(ours, prompts, per_prompt=asked.candidates, noise_seed=0, sampling=sampling):
            decoded(ours, drawn.latents_NCHW, sampling.chunk)
            found.append(drawn.latents_NCHW)

    def judge(prompts: Sequence[str]) -> None:
        ours.backbone.expect([prompt] for prompt in prompts)
        for prompt, latents in zip(prompts, found, strict=True):
            gains(ours, prompt, latents, scoring, reference="base")

    def call(prompts: Sequence[str]) -> None:
        # Its LoRA is float32 beside weights that may not be.
        reduced = dtype != torch.float32
        with torch.no_grad(), torch.autocast(bench.backbone.device.type, dtype, enabled=reduced):
            pipeline(
                list(prompts),
                num_images_per_prompt=asked.candidates,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance,
                height=height,
                width=width,
                output_type="np",
            )

    call(PROMPTS[: asked.prompts])  # Once outside of time; ours has judged its pairs already.
    turns = []
    for turn in range(3):
        # New ones each time: ours keeps what it has encoded.
        prompts = [f"{prompt} {turn}" for prompt in PROMPTS[: asked.prompts]]
        turns.append([clock.seconds(partial(do, prompts)) for do in (propose, judge, call)])
    drawing, judging, calling = (median(own) for own in zip(*turns, strict=True))
    return Candidates(count / drawing, count / (drawing + judging), count / calling)


def pipeline_of(backbone: Backbone, sampling: Sampling) -> Any:
    """The model's diffusers pipeline, with the solver that we draw with."""
    pipeline: Any = backbone._pipeline  # type: ignore[attr-defined]
    solver = backbone.solver(sampling.solver, sampling.steps, backbone.latent_shape(sampling.size))
    pipeline.scheduler = type(solver).from_config(pipeline.scheduler.config)  # type: ignore[attr-defined]
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def peak_memory_mib(device: torch.device) -> float:
    """Of the GPU since the last reset; of the whole process so far on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def matmul_peak(device: torch.device, clock: Clock, side: int = 8192) -> float:
    """Operations a second of a large bfloat16 matrix product: the median of ten."""
    left = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    left @ left
    return 2 * side**3 / median(clock.seconds(lambda: left @ left) for _ in range(10))


def share_of_peak(bench: Bench, pairs_per_s: float, pixels: Pixels, peak: float) -> float:
    """Counted operations of training, forward and backward without the reference, by those of the peak."""
    backbone = bench.backbone
    latents = encoded(backbone, pixels_of(pixels.files[0][0])[None])
    timesteps = backbone.timesteps(torch.tensor([500], device=backbone.device), latents.shape[1:])
    conditioning = backbone.encode_prompts(pixels.prompts[:1])
    one = operations(lambda: backbone.predict(latents, timesteps, conditioning).square().mean().backward())
    return 2 * one * pairs_per_s / peak


# The public script


def peer_figures(script: Path, bench: Bench, pixels: Pixels, model: Path) -> dict[str, float | str]:
    """The public diffusers script on the same pairs, by its own progress; or why it could not be run.

    On a GPU with the settings of its README, and what the device's memory rose by meanwhile.
    """
    data = bench.folder / "peer-data"
    data.mkdir()
    rows = [
        {"jpg_0": files[0].read_bytes(), "jpg_1": files[1].read_bytes(), "label_0": 1, "caption": prompt}
        for prompt, files in zip(pixels.prompts, pixels.files, strict=True)
    ]
    pd.DataFrame(rows).to_parquet(data / "train.parquet")
    command = [sys.executable, str(script)]
    options: dict[str, object] = {
        "pretrained_model_name_or_path": model.resolve(),
        "dataset_name": data,
        "dataset_split_name": "train",
        "output_dir": bench.folder / "peer",
        "resolution": Image.open(pixels.files[0][0]).size[0],
        "train_batch_size": bench.asked.batch,
        "max_train_steps": bench.asked.steps,
        "rank": bench.settings.lora.rank,
        "lr_warmup_steps": 0,
        "checkpointing_steps": 10 * bench.asked.steps,
        "report_to": "tensorboard",
    }
    on_gpu = bench.backbone.device.type == "cuda"
    if on_gpu:
        options["mixed_precision"] = "fp16"
        command += ["--gradient_checkpointing"]
        command += ["--use_8bit_adam"] if find_spec("bitsandbytes") else []
    command += [f"--{name}={value}" for name, value in options.items()]
    with MemoryInUse(on_gpu) as memory:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return {"not_run": f"{script.name} could not be run here: {said}"}
    rate = round(last_rate(done.stderr) * bench.asked.batch, 3)
    return {"pairs_per_s": rate, **({"peak_memory_mib": round(memory.rise_mib)} if on_gpu else {})}


class MemoryInUse:
    """What the GPU's memory in use rises by, by all processes, while another process works on it."""

    def __init__(self, on_gpu: bool) -> None:
        self._on_gpu, self._done, self.rise_mib = on_gpu, Event(), 0.0
        self._watching = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryInUse:
        if self._on_gpu:
            torch.cuda.empty_cache()
            self._free, _ = torch.cuda.mem_get_info()
            self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._on_gpu:
            self._watching.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.rise_mib = max(self.rise_mib, (self._free - torch.cuda.mem_get_info()[0]) / 2**20)


def last_rate(progress: str) -> float:
    """Steps a second that a tqdm bar named Steps told last; ValueError where there is none."""
    found = [part.split(",")[1].strip() for part in progress.split("Steps:") if "[" in part and "," in part]
    for told in reversed(found):
        number = told.split("]")[0].strip()
        if number.endswith("it/s"):
            return float(number.removesuffix("it/s"))
        if number.endswith("s/it"):
            return 1 / float(number.removesuffix("s/it"))
    raise ValueError("The script's progress names no rate. Was it stopped early?")


# Predicted and measured


def predicted_and_measured(asked: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """A train and a propose run of a round, reckoned from one of each of half the size before, and timed."""
    model = ModelRef(source=str(asked.model))
    settings, clock = LoopSettings.for_model(model), Clock(torch.device(asked.device))
    seed = ProposeRequest(model=model, prompts=PROMPTS, num_candidates=4, sampling=settings.sampling)
    # Also what a process does only once, so that it counts for none of the others.
    drawn = RunFolder.create(folder / "seed", seed)
    execute(drawn)
    pairs, paces = pairs_of(drawn), {}
    told: dict[str, dict[str, float]] = {}
    for size in (1, 2):
        optimisation = settings.optimisation.model_copy(update={"steps": asked.steps * size})
        train = TrainRequest(
            model=model,
            lora=settings.lora,
            loss=settings.loss,
            optimisation=optimisation,
            scoring=settings.scoring,
            sampling=settings.sampling,
        )
        reckoned = cost.evaluations_to_train(
            train, judged_pairs=len(pairs), human_pairs=len(pairs), self_pairs=0
        )
        trained = RunFolder.create(folder / f"train-{size}", train, pairs=pairs)
        told["train"] = timed(trained, reckoned, paces, clock)
        sha256 = (trained.result() or {})["sha256"]
        propose = ProposeRequest(
            model=model,
            adapter=sha256,
            prompts=tuple(f"{prompt} {turn}" for prompt in PROMPTS for turn in range(size)),
            num_candidates=settings.num_candidates,
            sampling=settings.sampling,
            scoring=settings.scoring,
        )
        adapters = {sha256: trained.path / "adapter"}
        proposed = RunFolder.create(folder / f"propose-{size}", propose, adapters=adapters)
        told["propose"] = timed(proposed, cost.evaluations_to_propose(propose), paces, clock)
    return told


def timed(folder: RunFolder, evaluations: int, paces: dict[str, float], clock: Clock) -> dict[str, float]:
    """Seconds as reckoned from the run of the same kind before, and as they were."""
    kind = folder.request().kind
    predicted = paces.get(kind, float("nan")) * evaluations
    measured = clock.seconds(lambda: execute(folder))
    paces[kind] = measured / evaluations
    found = {
        "predicted_s": predicted,
        "measured_s": measured,
        "predicted_over_measured": predicted / measured,
    }
    return {name: round(value, 3) for name, value in found.items()}


def pairs_of(drawn: RunFolder) -> list[TrainingPair]:
    """Candidates 0 and 1, 2 and 3 of each prompt as pairs: what is liked does not matter for time."""
    return [
        TrainingPair(
            id=f"{found.prompt_index}-{row}",
            prompt=found.prompt,
            winner=LatentsRef(file=str(drawn.path / found.latents), row=row),
            loser=LatentsRef(file=str(drawn.path / found.latents), row=row + 1),
            source="human",
        )
        for found in drawn.candidate_sets()
        for row in (0, 2)
    ]


# The program


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a diffusers folder; without it, on cuda, the shapes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--peer", type=Path, help="the public diffusers script train_diffusion_dpo.py")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument(
        "--block", type=int, default=2, help="steps of one loop before it is the other's turn"
    )
    parser.add_argument("--self-pairs", type=int, default=8)
    parser.add_argument("--self-pair-draws", choices=("new", "judged"), default="judged")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--compiled", action="store_true", help="ours with its denoiser compiled")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("No GPU is seen here. Give --device cpu.")
    if asked.model is None and asked.device == "cpu":
        parser.error("On a CPU give --model, for instance data/starter.")
    if asked.model is not None:
        try:
            ModelRef(source=str(asked.model)).checked()
        except ValueError as error:
            parser.error(str(error))
    with tempfile.TemporaryDirectory() as scratch:
        if asked.predict:
            found: dict[str, Any] = {"predict": predicted_and_measured(asked, Path(scratch))}
        elif asked.model is not None:
            found = of_model(asked, Path(scratch))
        else:
            found = {"shapes": {name: of_shape(name, asked, Path(scratch)) for name in asked.shapes}}
    if torch.cuda.is_available() and asked.device == "cuda":
        found["device"] = torch.cuda.get_device_name()
    else:
        found["device"] = f"cpu, {torch.get_num_threads()} threads"
    for name, value in found.items():
        print(f"{name}: {value}")
    if asked.json:
        print(json.dumps(found))


def of_model(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A model from a folder, with the settings that it brings."""
    model, device = ModelRef(source=str(asked.model)), torch.device(asked.device)
    settings = LoopSettings.for_model(model)
    bench = Bench(
        backbones.load(model, device),
        backbones.load(model, device),
        model,
        settings,
        asked,
        folder,
    )
    found = measured(bench)
    if asked.peer:
        add_peer(found, peer_figures(asked.peer, bench, bench.pixels(), asked.model))
    return found


def add_peer(found: dict[str, Any], said: Mapping[str, float | str]) -> None:
    found["train_pairs_per_s"]["peer"] = said.get("pairs_per_s", said.get("not_run"))
    if "peak_memory_mib" in said:
        found["peak_memory_mib"]["peer"] = said["peak_memory_mib"]


def of_shape(name: str, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A model of a published shape with random weights, in bfloat16 on the GPU."""
    device, side = torch.device(asked.device), SHAPES[name].side
    own = folder / name
    own.mkdir()
    backbone = backbone_of_shape(name, device)
    bench = Bench(
        backbone,
        backbone_of_shape(name, device),
        ModelRef(source=""),
        LoopSettings(sampling=Sampling(size=(side, side), chunk=4)),
        asked,
        own,
    )
    peak = matmul_peak(device, Clock(device))
    found = measured(bench)
    if asked.peer:
        model = own / "model"
        # A third one: the others have adapters in them now.
        backbone_of_shape(name, device)._pipeline.save_pretrained(model)  # type: ignore[attr-defined]
        add_peer(found, peer_figures(asked.peer, bench, bench.pixels(), model))
    share = share_of_peak(bench, found["train_pairs_per_s"]["ours"], bench.pixels(), peak)
    return {**found, "share_of_matmul_peak": round(share, 3), "matmul_tflops": round(peak / 1e12, 1)}


if __name__ == "__main__":
    main()
