"""A train run: optimise one adapter on pairs, measure it, decide. Checkpoints and resumes to the same bytes.

P pairs of a batch, 2P their winners, then their losers; M some of the 2P; C H W latent.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sail import cost, distributed
from sail.backbones.base import Conditioning, take
from sail.batches import Batch, Batches, PairData, load_pairs
from sail.candidates import decoded, save_png
from sail.cost import ties_in_a_step
from sail.files import publish, publish_json, publish_lines
from sail.loss import PairLoss, denoising_error, diffusion_dpo, safe_share
from sail.memory import Fit, MemoryFit, is_out_of_memory, said_by_device
from sail.monitors import Appearance, base_appearance, judged_pairs, measure
from sail.policy import Part, Policy, policy_of, tell_cut
from sail.progress import Progress
from sail.records import JudgedPair
from sail.requests import TrainRequest
from sail.runfolder import RunFolder, Stopped
from sail.sampling import draw

READ_EVERY = 10
"""Steps between two looks at what a GPU has computed: each waits until it has done all that it was given."""
METRICS = ("loss", "margin", "winner_gain", "loser_gain", "accuracy")


class Diverged(ValueError):
    """Loss or gradient is no longer finite with these settings; the adapter before stays as it was."""


def train(folder: RunFolder, request: TrainRequest, progress: Progress) -> dict[str, object]:
    """Optimise, save the adapter, measure it and apply the gate. Returns what result.json says."""
    began = time.monotonic()
    policy = policy_of(request.model, progress)
    reference = _place_adapters(folder, request, policy)
    begun = policy.state()
    data = load_pairs(folder, policy, request)
    cut = tell_cut(policy, {pair.prompt for pair in folder.pairs()}, progress)
    trainer = Trainer(folder, request, policy, reference, data)
    human, self_made = len(data.sides["human"]), len(data.sides["self"])
    progress.plan(
        cost.stages_of_training(
            request,
            judged_pairs=len(data.human),
            human_pairs=human,
            self_pairs=self_made,
            tie_pairs=len(data.sides["tie"]),
            open_pairs=len(data.open),
            distilled=policy.backbone.distilled,
        )
    )
    looking = time.monotonic()
    base = _base_appearance(folder, request, policy, progress)
    looked_s = time.monotonic() - looking
    trainer.run(progress)
    trained = time.monotonic()

    measured = measure(
        policy,
        data.human,
        base=base,
        beta=request.loss.beta,
        scoring=request.scoring,
        sampling=request.sampling,
        monitoring=request.monitoring,
        progress=progress,
        begun=begun,
    )
    if measured.kept < 1:
        trainer.preview()  # Once more: people are shown what is kept.
    sha256 = distributed.from_main(lambda: policy.save(folder.path / "adapter"))
    publish_judged(folder.path / "judged_pairs.jsonl", measured.judged)
    unjudged = judged_pairs(
        policy, data.open, request.scoring, beta=request.loss.beta, progress=progress, what=cost.JUDGE_OPEN
    )
    publish_judged(folder.path / "judged_open.jsonl", unjudged)
    winner_gain, loser_gain = distributed.from_main(lambda: _last_gains(folder))
    return {
        "adapter": "adapter",
        "sha256": sha256,
        "steps": request.optimisation.steps,
        "human_pairs": human,
        "self_pairs": self_made,
        "tie_pairs": len(data.sides["tie"]),
        "prompts_cut": cut,
        "self_fraction": request.mixup.self_fraction if human and self_made else float(human == 0),
        "kept": measured.kept,
        "cut_because": measured.cut_because,
        "looks": measured.times_drawn,
        **measured.told(request.monitoring),
        "winner_gain": winner_gain,
        "loser_gain": loser_gain,
        **trainer.fit.told(),
        "distilled": policy.backbone.distilled,
        "seconds": round(time.monotonic() - began, 2),
        "stage_seconds": {
            "train": round(trained - began - looked_s, 2),
            "measure": round(time.monotonic() - trained + looked_s, 2),
        },
    }


def _base_appearance(
    folder: RunFolder, request: TrainRequest, policy: Policy, progress: Progress
) -> Appearance | None:
    """Drawn before anything is learned, so that no training is lost where so many images at once do not fit;
    kept for a resume."""
    kept = folder.path / "checkpoint" / "base_looks.json"
    known = distributed.from_main(lambda: json.loads(kept.read_text()) if kept.exists() else None)
    if known is not None:
        return Appearance(**known)
    found = base_appearance(policy, request.monitoring, request.sampling, progress)
    if found is not None and distributed.is_main():
        kept.parent.mkdir(exist_ok=True)
        publish_json(kept, asdict(found))
    return found


def publish_judged(path: Path, judged: list[JudgedPair]) -> None:
    """By the main process. Together."""
    distributed.from_main(lambda: publish_lines(path, (pair.model_dump() for pair in judged)))


def _place_adapters(folder: RunFolder, request: TrainRequest, policy: Policy) -> Part:
    """Load or make the policy adapter and, where it is asked for anything, its parent beside it; return the
    reference's part."""
    if request.parent_adapter is None:
        policy.add_trainable(request.lora, noise_seed=request.optimisation.noise_seed)
        return "base"
    parent = folder.adapter_input(request.parent_adapter)
    if request.reference == "parent" or request.loss.hold_ties > 0:
        policy.load("parent", parent)
    policy.load("policy", parent)
    return request.reference


def _last_gains(folder: RunFolder) -> tuple[float | None, float | None]:
    """Mean winner and loser gain over the last quarter of the steps; None where metrics.jsonl was lost."""
    lines = folder.metrics()
    if not lines:
        return None, None
    last = lines[-max(1, len(lines) // 4) :]
    return tuple(sum(line[key] for line in last) / len(last) for key in ("winner_gain", "loser_gain"))


class Asked(NamedTuple):
    """What the denoiser is asked of a micro-batch, and what it should answer."""

    noisy_2P: Tensor
    timesteps_2P: Tensor
    conditioning_2P: Conditioning
    target_2P: Tensor

    def rows(self, row_M: Tensor) -> Asked:
        parts = (self.noisy_2P[row_M], self.timesteps_2P[row_M], take(self.conditioning_2P, row_M))
        return Asked(*parts, self.target_2P[row_M])


def _own_part(whole: Batch) -> Batch:
    """What this process takes of it."""
    return whole.slice(*distributed.span(len(whole)))


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
        self._folder, self._request, self._policy = folder, request, policy
        self._reference = reference
        device, config = policy.backbone.device, request.optimisation
        self._batches = Batches(
            data,
            policy.backbone,
            config,
            self_fraction=request.mixup.self_fraction,
            guided=request.sampling.is_guided(distilled=policy.backbone.distilled),
        )
        self._parameters = policy.parameters()
        # Fused: the plain one reads every parameter's count of steps back.
        self._optimiser = torch.optim.AdamW(
            self._parameters.values(), lr=config.learning_rate, weight_decay=0.0, fused=True
        )
        self.fit = MemoryFit(folder, config, on_gpu=device.type == "cuda")
        self._checkpoint = folder.path / "checkpoint" / "state.pt"
        self._step = 0
        self._said = ""
        """By the device, where memory ran out last."""
        self._unread: list[Tensor] = []
        self._of_losers: list[Tensor] = []
        """Where they are safeguarded: the part of the gradients that is the losers'."""
        self._of_ties: list[Tensor] = []
        """The same of ties that are held."""
        self._read_every = 1 if device.type == "cpu" else READ_EVERY

    def run(self, progress: Progress) -> None:
        """From the last checkpoint, if there is one, to the last step."""
        total = self._request.optimisation.steps
        self._resume()
        distributed.from_main(lambda: self._folder.cut_metrics(self._step))
        progress.stage(cost.LEARN, total, done=self._step)
        # A kill may have come between a checkpoint and its preview.
        if self._at_checkpoint() and not all(file.exists() for file in self._previews()):
            self.preview()
        self._since = time.monotonic()
        while self._step < total:
            self.advance(progress)
            progress.advance()
            if self._at_checkpoint() or len(self._unread) >= self._read_every:
                self._read()
            if self._at_checkpoint():
                self._save()
                self.preview()
                self._since = time.monotonic()
            if self._unread and distributed.world_size() > 1:
                # To agree on a stop waits for the device, which is waited for when metrics are read.
                continue
            try:
                distributed.from_main(self._folder.stop_if_asked)
            except Stopped:
                self._read()
                self._save()
                raise

    def _at_checkpoint(self) -> bool:
        """Whether this step has one, and a preview, whoever asks for a stop."""
        steps, every = self._request.optimisation.steps, self._request.checkpoint_every
        return self._step % every == 0 or self._step == steps

    def advance(self, progress: Progress) -> None:
        """One step. What it came to stays on the device until it is read."""
        self._unread.append(self._optimise(progress))
        self._step += 1

    def _read(self) -> None:
        """Wait for the metrics of the steps since the last look, and write them down."""
        if not self._unread:
            return
        lines = torch.stack(self._unread).tolist()
        seconds = round((time.monotonic() - self._since) / len(lines), 4)
        first = self._step - len(lines) + 1
        self._unread, self._since = [], time.monotonic()
        for step, (*values, norm) in enumerate(lines, first):
            metrics = dict(zip(METRICS, values, strict=True))
            for what, value in (("loss", metrics["loss"]), ("gradient", norm)):
                if not math.isfinite(value):
                    raise Diverged(
                        f"The {what} is {value} at step {step}. "
                        "This run leaves no adapter; train again with a lower learning rate."
                    )
            if distributed.is_main():
                self._folder.append_metric(step=step, **metrics, grad_norm=norm, seconds=seconds)

    def _optimise(self, progress: Progress) -> Tensor:
        """One step over the global batch; returns its means and the norm of its gradient, on the device."""
        config = self._request.optimisation
        for group in self._optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (self._step + 1) / max(1, config.warmup_steps))
        batch, means = _own_part(self._batches.at(self._step)), None
        held = self._batches.ties_at(self._step) if self._request.loss.hold_ties else None
        ties = _own_part(held) if held is not None else None
        while means is None:
            means = self._gradients(batch, ties, self.fit.at(self._step + 1))
            if means is None:
                # Only now: what was raised had hold of the memory.
                torch.cuda.empty_cache()
                fit = self.fit.smaller(self._step + 1, self._said)
                progress.note(f"Memory ran out in step {self._step + 1}. It goes on with {fit.in_words}.")
        means = self._summed(means)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), config.max_grad_norm)
        self._optimiser.step()
        return torch.cat([means, norm.view(1)])

    def _summed(self, totals: Tensor) -> Tensor:
        """Gradients of the whole step in place of this process's; returns the sum of all totals."""
        gradients = [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]
        totals = distributed.sum_gradients([*gradients, *self._of_losers, *self._of_ties], totals)
        if self._of_losers:
            share = safe_share(gradients, self._of_losers)
            for gradient, of_losers in zip(gradients, self._of_losers, strict=True):
                gradient += share * of_losers
        if self._of_ties:
            for gradient, of_ties in zip(gradients, self._of_ties, strict=True):
                gradient += of_ties
        return totals

    def _taken(self) -> list[Tensor]:
        """The gradients so far, which begin anew."""
        parameters = list(self._parameters.values())
        found = [torch.zeros_like(own) if own.grad is None else own.grad for own in parameters]
        self._optimiser.zero_grad(set_to_none=True)
        return found

    def _gradients(self, batch: Batch, ties: Batch | None, fit: Fit) -> Tensor | None:
        """Leave the gradients of this process's part of a step; returns its share of the means, or None where
        memory ran out. `ties` are to be held."""
        config = self._request.optimisation
        self._optimiser.zero_grad(set_to_none=True)
        self._of_losers, self._of_ties = [], []
        self._policy.backbone.checkpoint_activations(fit.checkpointing)
        try:
            means = torch.stack(
                [
                    self._backward(micro, len(micro) / config.batch_pairs)
                    for micro in batch.parts(fit.micro_batch_pairs)
                ]
            ).sum(0)
            taught = self._taken() if ties is not None and self._request.loss.safeguard else None
            for micro in ties.parts(fit.micro_batch_pairs) if ties is not None else ():
                self._hold(micro, len(micro) / ties_in_a_step(config))
            if taught is not None:
                # The safeguard weighs what winners teach alone.
                self._of_ties = self._taken()
                for parameter, own in zip(self._parameters.values(), taught, strict=True):
                    parameter.grad = own
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._said = said_by_device(error)
            return None
        return means

    def _backward(self, micro: Batch, weight: float) -> Tensor:
        """Add a micro-batch's share to the gradients; returns its share of the means."""
        asked = self._asked(micro)
        loss, humans = self._request.loss, micro.human_P
        if loss.objective == "mirrored":
            pair = self._backward_mirrored(asked, humans, weight)
        elif loss.safeguard:
            pair = self._backward_apart(asked, self._reference_error(micro, asked), humans, weight)
        else:
            reference_error_2P = self._reference_error(micro, asked)
            with self._policy.folded(learning=True):
                pair = diffusion_dpo(self._error(asked), reference_error_2P, loss, human_P=humans)
                (pair.loss_P.mean() * weight).backward()
        means = {
            "loss": pair.loss_P.mean(),
            "margin": pair.margin_P.mean(),
            "winner_gain": pair.winner_gain_P.mean(),
            "loser_gain": pair.loser_gain_P.mean(),
            "accuracy": ((pair.margin_P > 0).float() + 0.5 * (pair.margin_P == 0).float()).mean(),
        }
        return torch.stack([means[name] for name in METRICS]).detach() * weight

    def _hold(self, micro: Batch, weight: float) -> None:
        """Add to the gradients what keeps the policy's predictions on tied images where the round began."""
        asked, loss = self._asked(micro), self._request.loss
        with self._as_before("parent"):  # Without one that is the base model.
            before_2P = self._prediction(asked)
        with self._policy.folded(learning=True):
            moved_2P = denoising_error(self._prediction(asked), before_2P)
            (loss.hold_ties * 0.5 * loss.beta * moved_2P.mean() * weight).backward()

    def _reference_error(self, micro: Batch, asked: Asked) -> Tensor:
        """(2P,): computed where the judge has not done it before."""
        known_2P, unknown_M = micro.reference_error_2P, micro.unknown_M
        if len(unknown_M) == 0:
            return known_2P
        with self._as_before(self._reference):
            return known_2P.index_copy(0, unknown_M, self._error(asked.rows(unknown_M)))

    def _backward_apart(
        self, asked: Asked, reference_error_2P: Tensor, human_P: Tensor, weight: float
    ) -> PairLoss:
        """As `_backward`, but what winners teach is added to the gradients and what losers teach kept beside.

        Two passes over half of the images each cost what one over all of them does.
        """
        row_2P = torch.arange(len(reference_error_2P), device=reference_error_2P.device)
        errors = [self._error(asked.rows(row_P)) for row_P in row_2P.chunk(2)]
        error_2P = torch.cat(errors).detach().requires_grad_()
        pair = diffusion_dpo(error_2P, reference_error_2P, self._request.loss, human_P=human_P)
        (slope_2P,) = torch.autograd.grad(pair.loss_P.mean() * weight, error_2P)
        of_winners, of_losers = (
            torch.autograd.grad((slope_P * error_P).sum(), list(self._parameters.values()))
            for slope_P, error_P in zip(slope_2P.chunk(2), errors, strict=True)
        )
        for parameter, own in zip(self._parameters.values(), of_winners, strict=True):
            parameter.grad = own if parameter.grad is None else parameter.grad + own
        before = self._of_losers or [torch.zeros_like(own) for own in of_losers]
        self._of_losers = [kept + own for kept, own in zip(before, of_losers, strict=True)]
        return pair

    def _backward_mirrored(self, asked: Asked, human_P: Tensor, weight: float) -> PairLoss:
        """As `_backward`. What the judge knows of the reference, its errors, is not enough here."""
        with self._as_before(self._reference):
            reference_2P = self._prediction(asked)
        with self._policy.folded(learning=True):
            policy_2P = self._prediction(asked)
            pair = diffusion_dpo(
                denoising_error(policy_2P, asked.target_2P),
                denoising_error(reference_2P, asked.target_2P),
                self._request.loss,
                human_P=human_P,
                moved_2P=denoising_error(policy_2P, reference_2P),
            )
            (pair.loss_P.mean() * weight).backward()
        return pair

    @contextmanager
    def _as_before(self, part: Part) -> Iterator[None]:
        """As what does not learn, which is faster with its adapter in the weights."""
        with self._policy.acting_as(part), self._policy.folded():
            yield

    def _asked(self, micro: Batch) -> Asked:
        draws = (micro.latents_2P, micro.noise_2P, micro.timesteps_2P)
        backbone = self._policy.backbone
        return Asked(
            backbone.noisy(*draws), micro.timesteps_2P, micro.conditioning_2P, backbone.target(*draws)
        )

    def _error(self, asked: Asked) -> Tensor:
        """Of the part that the policy now plays: (2P,)."""
        return denoising_error(self._prediction(asked), asked.target_2P)

    def _prediction(self, asked: Asked) -> Tensor:
        """Of the part that the policy now plays: (2P, C, H, W)."""
        return self._policy.backbone.predict(asked.noisy_2P, asked.timesteps_2P, asked.conditioning_2P)

    def preview(self) -> None:
        """Images of the first held-out prompts on fixed noise seeds, as they are at this step."""
        monitoring, files = self._request.monitoring, self._previews()
        prompts = monitoring.prompts[: len(files)]
        if not files or not distributed.is_main():
            return
        folder = files[0].parent
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
        images = decoded(self._policy, torch.stack(latents), self._request.sampling.chunk)
        for file, image_HW3 in zip(files, images, strict=True):
            publish(file, lambda beside, own=image_HW3: save_png(own, beside))  # type: ignore[misc]

    def _previews(self) -> list[Path]:
        """The files of this step's images."""
        monitoring = self._request.monitoring
        folder = self._folder.path / "samples" / f"step-{self._step:05d}"
        return [
            folder / f"{index}.png"
            for index in range(min(len(monitoring.prompts), monitoring.preview_prompts))
        ]

    def _save(self) -> None:
        if not distributed.is_main():
            return
        state: dict[str, Any] = {
            "step": self._step,
            "weights": {name: parameter.detach().cpu() for name, parameter in self._parameters.items()},
            "optimiser": self._optimiser.state_dict(),
        }
        self._checkpoint.parent.mkdir(exist_ok=True)
        self._folder.keep_metrics()
        whole = io.BytesIO()
        torch.save(state, whole)
        # Not by torch, to which a full disk is an internal error.
        publish(self._checkpoint, lambda beside: beside.write_bytes(whole.getbuffer()) and None)

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
