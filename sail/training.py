"""A train run: optimise one adapter on pairs, measure it, decide. Checkpoints and resumes to the same bytes.

P pairs of a batch, C H W latent.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sail import backbones, distributed
from sail.backbones.base import Conditioning, take
from sail.config import TrainRequest
from sail.loss import denoising_error, diffusion_dpo, stratified_timesteps
from sail.mixup import Mixer
from sail.monitors import HumanPair, closed_because, judged_pairs, measure
from sail.policy import Part, Policy
from sail.proposing import load_latents, save_png
from sail.records import JudgedPair, Source, TrainingPair
from sail.runfolder import Progress, RunFolder, Stopped, publish, publish_json, publish_lines
from sail.sampling import draw

MAX_LEARNED_JUDGED = 256
"""Pairs it learned from that the judge is asked about: enough for a share, however many labels there are."""
MAX_OPEN_JUDGED = 64
"""Open pairs that the judge is asked about: what people label next, however many are drawn."""


class Diverged(ValueError):
    """Loss or gradient is no longer finite with these settings; the adapter before stays as it was."""


@dataclass(frozen=True)
class PairData:
    """All that a step needs of the pairs, in memory: never pixels."""

    latents: list[Tensor]
    """Winner and loser of each pair: 2 C H W."""
    prompt_rows: list[int]
    conditioning: Conditioning
    """A row for each different prompt, and the empty prompt as the last row."""
    sides: dict[Source, list[int]]
    """Indices of the pairs to learn from, by who judged them."""
    human: list[HumanPair]
    """Those that the judge is asked about, learned from or held out."""
    open: list[HumanPair]
    """Pairs that nobody has judged, which it is asked about as well."""


def load_pairs(folder: RunFolder, policy: Policy) -> PairData:
    pairs = folder.pairs()
    # Not those of open pairs: an adapter is the same whether or not its judge is asked about more.
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs if pair.source != "open"))
    row_of = {prompt: row for row, prompt in enumerate(prompts)}
    latents = [_both_latents(folder.path, pair) for pair in pairs]
    judged, unjudged = _to_judge(pairs), set(_indices(pairs, "open")[:MAX_OPEN_JUDGED])
    asked = {
        index: HumanPair(pair.id, pair.prompt, both, pair.held_out or pair.source == "open")
        for index, (pair, both) in enumerate(zip(pairs, latents, strict=True))
    }
    return PairData(
        latents=latents,
        prompt_rows=[row_of.get(pair.prompt, -1) for pair in pairs],
        conditioning=_encode(policy, [*prompts, ""]),
        sides={side: _indices(pairs, side) for side in ("human", "self")},
        human=[one for index, one in asked.items() if index in judged],
        open=[one for index, one in asked.items() if index in unjudged],
    )


def _to_judge(pairs: list[TrainingPair]) -> frozenset[int]:
    """Indices of the human pairs that the judge is asked about: all that are held out, and so many others."""
    held_out = [index for index, pair in enumerate(pairs) if pair.held_out]
    learned = _indices(pairs, "human")
    learned.sort(key=lambda index: hashlib.sha256(pairs[index].id.encode()).digest())
    return frozenset([*held_out, *learned[:MAX_LEARNED_JUDGED]])


def _both_latents(run: Path, pair: TrainingPair) -> Tensor:
    return torch.stack([load_latents(run, ref.file, ref.row) for ref in (pair.winner, pair.loser)])


def _indices(pairs: list[TrainingPair], side: str) -> list[int]:
    return [index for index, pair in enumerate(pairs) if pair.source == side and not pair.held_out]


def _encode(policy: Policy, prompts: list[str], batch: int = 64) -> Conditioning:
    parts = [policy.backbone.encode_prompts(prompts[i : i + batch]) for i in range(0, len(prompts), batch)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def train(folder: RunFolder, request: TrainRequest, progress: Progress) -> dict[str, object]:
    """Optimise, save the adapter, measure it and apply the gate. Returns what result.json says."""
    began = time.monotonic()
    policy = Policy(backbones.load(request.model, told=progress.download))
    reference = _place_adapters(folder, request, policy)
    data = load_pairs(folder, policy)
    trainer = Trainer(folder, request, policy, reference, data)
    trainer.run(progress)
    sha256 = distributed.from_main(lambda: policy.save(folder.path / "adapter"))
    trained = time.monotonic()

    measured = measure(
        policy,
        data.human,
        beta=request.loss.beta,
        scoring=request.scoring,
        sampling=request.sampling,
        monitoring=request.monitoring,
        progress=progress,
    )
    publish_judged(folder.path / "judged_pairs.jsonl", measured.judged)
    unjudged = judged_pairs(
        policy, data.open, request.scoring, beta=request.loss.beta, progress=progress, what="judge open pairs"
    )
    publish_judged(folder.path / "judged_open.jsonl", unjudged)
    reasons = closed_because(measured, request.monitoring)
    human, self_made = len(data.sides["human"]), len(data.sides["self"])
    winner_gain, loser_gain = distributed.from_main(lambda: _last_gains(folder))
    return {
        "adapter": "adapter",
        "sha256": sha256,
        "steps": request.optimisation.steps,
        "human_pairs": human,
        "self_pairs": self_made,
        "self_fraction": request.mixup.self_fraction if human and self_made else float(human == 0),
        "judge_accuracy": measured.judge_accuracy.model_dump(),
        "human_agreement": measured.human_agreement.model_dump(),
        "diversity_ratio": measured.diversity_ratio,
        "saturation_ratio": measured.saturation_ratio,
        "winner_gain": winner_gain,
        "loser_gain": loser_gain,
        "accepted": not reasons,
        "reasons": reasons,
        "seconds": round(time.monotonic() - began, 2),
        "stage_seconds": {
            "train": round(trained - began, 2),
            "measure": round(time.monotonic() - trained, 2),
        },
    }


def publish_judged(path: Path, judged: list[JudgedPair]) -> None:
    """By the main process. Together."""
    distributed.from_main(lambda: publish_lines(path, (pair.model_dump() for pair in judged)))


def _place_adapters(folder: RunFolder, request: TrainRequest, policy: Policy) -> Part:
    """Load or make the policy adapter and the frozen reference beside it; return the reference's part."""
    if request.parent_adapter is None:
        policy.add_trainable(request.lora, noise_seed=request.optimisation.noise_seed)
        return "base"
    parent = folder.adapter_input(request.parent_adapter)
    if request.reference == "parent":
        policy.load("reference", parent)
    policy.load("policy", parent)
    return "reference" if request.reference == "parent" else "base"


def _last_gains(folder: RunFolder) -> tuple[float, float]:
    """Mean winner and loser gain over the last quarter of the steps."""
    lines = folder.metrics()
    last = lines[-max(1, len(lines) // 4) :]
    return tuple(sum(line[key] for line in last) / len(last) for key in ("winner_gain", "loser_gain"))


class Trainer:
    """The optimiser's loop. Every draw is a function of the request and the step, so a resume needs no more
    than weights, optimiser state and the step.

    All processes draw the same batch, and each takes its part of it. Gradients are summed by hand: a wrapper
    for data-parallel training expects a forward pass to each backward pass, and the denoiser, which plays
    several parts, makes more.
    """

    def __init__(
        self, folder: RunFolder, request: TrainRequest, policy: Policy, reference: Part, data: PairData
    ) -> None:
        pairs, processes = request.optimisation.batch_pairs, distributed.world_size()
        if pairs < processes:
            raise ValueError(
                f"A step of {pairs} pairs cannot be shared by {processes} processes. "
                f"Start at most {pairs}, or have {processes} pairs in a step."
            )
        self._folder, self._request, self._policy, self._data = folder, request, policy, data
        self._reference = reference
        self._accelerator = Accelerator(
            cpu=policy.backbone.device.type == "cpu", step_scheduler_with_optimizer=False
        )
        self._mixer = Mixer(
            human_pairs=len(data.sides["human"]),
            self_pairs=len(data.sides["self"]),
            self_fraction=request.mixup.self_fraction,
            noise_seed=request.optimisation.noise_seed,
        )
        self._parameters = policy.parameters()
        self._optimiser = torch.optim.AdamW(
            self._parameters.values(), lr=request.optimisation.learning_rate, weight_decay=0.0
        )
        self._checkpoint = folder.path / "checkpoint" / "state.pt"
        self._step = 0

    def run(self, progress: Progress) -> None:
        """From the last checkpoint, if there is one, to the last step."""
        total = self._request.optimisation.steps
        self._resume()
        distributed.from_main(lambda: self._folder.cut_metrics(self._step))
        progress.stage("train", total, done=self._step)
        if self._step == 0:
            self._preview()
        while self._step < total:
            began = time.monotonic()
            metrics = self._optimise()
            self._step += 1
            if distributed.is_main():
                seconds = round(time.monotonic() - began, 4)
                self._folder.append_metric(step=self._step, **metrics, seconds=seconds)
            progress.advance()
            if self._step % self._request.checkpoint_every == 0 or self._step == total:
                self._save()
                self._preview()
            try:
                distributed.from_main(self._folder.stop_if_asked)
            except Stopped:
                self._save()
                raise

    def _optimise(self) -> dict[str, float]:
        """One step over the global batch; returns its means."""
        config = self._request.optimisation
        for group in self._optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (self._step + 1) / max(1, config.warmup_steps))
        batch = self._batch().slice(*distributed.span(config.batch_pairs))
        totals: dict[str, float] = {}
        self._optimiser.zero_grad(set_to_none=True)
        for first in range(0, len(batch), config.micro_batch_pairs):
            micro = batch.slice(first, first + config.micro_batch_pairs)
            for name, value in self._backward(micro, len(micro) / config.batch_pairs).items():
                totals[name] = totals.get(name, 0.0) + value
        totals = distributed.sum_gradients(self._parameters.values(), totals)
        if not math.isfinite(totals["loss"]):
            raise Diverged(
                f"The loss is {totals['loss']} at step {self._step + 1}. "
                "This run leaves no adapter; train again with a lower learning rate."
            )
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), config.max_grad_norm)
        if not torch.isfinite(norm):
            raise Diverged(
                f"The gradient is no longer finite at step {self._step + 1}. "
                "This run leaves no adapter; train again with a lower learning rate."
            )
        self._optimiser.step()
        return {**totals, "grad_norm": float(norm)}

    def _backward(self, micro: Batch, weight: float) -> dict[str, float]:
        backbone = self._policy.backbone
        noisy = backbone.noisy(micro.latents_2P, micro.noise_2P, micro.timesteps_2P)
        target = backbone.target(micro.latents_2P, micro.noise_2P, micro.timesteps_2P)
        inputs = (noisy, micro.timesteps_2P, micro.conditioning_2P)
        with self._policy.acting_as(self._reference):
            reference_error_2P = denoising_error(backbone.predict(*inputs), target)
        policy_error_2P = denoising_error(backbone.predict(*inputs), target)
        pair = diffusion_dpo(policy_error_2P, reference_error_2P, self._request.loss, pulled_P=micro.human_P)
        self._accelerator.backward(pair.loss_P.mean() * weight)
        means = {
            "loss": pair.loss_P.mean(),
            "margin": pair.margin_P.mean(),
            "winner_gain": pair.winner_gain_P.mean(),
            "loser_gain": pair.loser_gain_P.mean(),
            "accuracy": ((pair.margin_P > 0).float() + 0.5 * (pair.margin_P == 0).float()).mean(),
        }
        values = torch.stack(list(means.values())).detach() * weight
        return dict(zip(means, values.tolist(), strict=True))

    def _batch(self) -> Batch:
        """The pairs of this step with one timestep and one noise for winner and loser."""
        config, data, backbone = self._request.optimisation, self._data, self._policy.backbone
        drawn = self._mixer.batch(self._step, config.batch_pairs)
        pairs = [data.sides[side][index] for side, index in drawn]
        digest = hashlib.sha256(f"step\n{config.noise_seed}\n{self._step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        shape = data.latents[0].shape[1:]
        drawn_P = stratified_timesteps(len(pairs), backbone.num_train_timesteps, generator, config.timesteps)
        timesteps_P = backbone.timesteps(drawn_P, shape)
        noise_P = torch.randn((len(pairs), *shape), generator=generator)
        # Where guidance is distilled nothing is ever drawn without its prompt.
        empty_share = 0.0 if backbone.distilled else config.empty_prompt_share
        emptied_P = torch.rand(len(pairs), generator=generator) < empty_share
        empty_row = len(data.conditioning["prompt_embeds"]) - 1
        rows = [
            empty_row if emptied else data.prompt_rows[pair]
            for pair, emptied in zip(pairs, emptied_P.tolist(), strict=True)
        ]
        latents_P2 = torch.stack([data.latents[pair] for pair in pairs])
        human_P = torch.tensor([side == "human" for side, _ in drawn])
        return Batch(latents_P2, noise_P, timesteps_P, human_P, rows, data.conditioning, backbone.device)

    def _preview(self) -> None:
        """Images of the first held-out prompts on fixed noise seeds, as they are at this step."""
        monitoring = self._request.monitoring
        prompts = monitoring.prompts[: monitoring.preview_prompts]
        folder = self._folder.path / "samples" / f"step-{self._step:05d}"
        if not prompts or not distributed.is_main():
            return
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder.parent / "prompts.json").exists():
            publish_json(folder.parent / "prompts.json", prompts)
        with self._policy.acting_as("policy"):
            latents = [
                drawn.latents_NCHW[0]
                for drawn in draw(
                    self._policy,
                    prompts,
                    per_prompt=1,
                    noise_seed=monitoring.noise_seed,
                    sampling=self._request.sampling,
                )
            ]
        images = self._policy.backbone.decode(torch.stack(latents).to(self._policy.backbone.device))
        for index, image_HW3 in enumerate(images):
            publish(folder / f"{index}.png", lambda beside, own=image_HW3: save_png(own, beside))  # type: ignore[misc]

    def _save(self) -> None:
        if not distributed.is_main():
            return
        state: dict[str, Any] = {
            "step": self._step,
            "weights": {name: parameter.detach().cpu() for name, parameter in self._parameters.items()},
            "optimiser": self._optimiser.state_dict(),
        }
        self._checkpoint.parent.mkdir(exist_ok=True)
        publish(self._checkpoint, lambda beside: torch.save(state, beside))

    def _resume(self) -> None:
        # One reads for all: that processes go on from different steps cannot be seen in what they write.
        state = distributed.from_main(self._saved)
        if state is None:
            return
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state["weights"][name])
        self._optimiser.load_state_dict(state["optimiser"])
        self._step = int(state["step"])

    def _saved(self) -> dict[str, Any] | None:
        if not self._checkpoint.exists():
            return None
        return dict(torch.load(self._checkpoint, map_location="cpu", weights_only=True))


class Batch:
    """Pairs of one step. Winners come first, then losers; everything else is duplicated for both."""

    def __init__(
        self,
        latents_P2: Tensor,
        noise_P: Tensor,
        timesteps_P: Tensor,
        human_P: Tensor,
        prompt_rows: list[int],
        conditioning: Conditioning,
        device: torch.device,
    ) -> None:
        self._own = (latents_P2, noise_P, timesteps_P, human_P, prompt_rows, conditioning, device)
        self.latents_2P = torch.cat([latents_P2[:, 0], latents_P2[:, 1]]).to(device)
        # One noise and one timestep for both: the margin compares images, not draws.
        self.noise_2P = torch.cat([noise_P, noise_P]).to(device)
        self.timesteps_2P = torch.cat([timesteps_P, timesteps_P]).to(device)
        self.human_P = human_P.to(device)
        self.conditioning_2P = take(conditioning, [*prompt_rows, *prompt_rows])

    def __len__(self) -> int:
        return len(self.human_P)

    def slice(self, first: int, last: int) -> Batch:
        latents_P2, noise_P, timesteps_P, human_P, rows, conditioning, device = self._own
        cut = slice(first, last)
        cut_tensors = (latents_P2[cut], noise_P[cut], timesteps_P[cut], human_P[cut])
        return Batch(*cut_tensors, rows[cut], conditioning, device)
