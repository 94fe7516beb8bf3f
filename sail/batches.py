"""The pairs of a train run, and which of them a step learns from, on which draws. Knows no optimiser.

P pairs of a batch, 2P their winners, then their losers; P2 a pair's two images; M rows of the
2P; C H W latent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from sail import distributed
from sail.backbones.base import Backbone, Conditioning, join, take
from sail.candidates import load_latents, space_of
from sail.config import Optimisation
from sail.cost import MAX_LEARNED_JUDGED, ties_in_a_step
from sail.distributed import generator_of
from sail.files import sha256_file
from sail.judged import BothErrors, JudgedDraws, judged_draws
from sail.loss import stratified_timesteps
from sail.mixup import Mixer
from sail.monitors import HumanPair
from sail.policy import Policy
from sail.records import Source, TrainingPair
from sail.requests import EvaluateRequest, TrainRequest
from sail.runfolder import RunFolder

MAX_OPEN_JUDGED = 64
"""Open pairs that the judge is asked about: what people label next, however many are drawn."""


@dataclass(frozen=True)
class PairData:
    """All that a step needs of the pairs, in memory: never pixels."""

    latents: list[Tensor]
    """Winner and loser of each pair: 2 C H W."""
    prompt_rows: list[int]
    conditioning: Conditioning
    """On the CPU: a row for each different prompt, and the empty prompt as the last row."""
    sides: dict[Source, list[int]]
    """Indices of the pairs to learn from, by who judged them, and of those to hold, the ties."""
    human: list[HumanPair]
    """Those that the judge is asked about, learned from or held out."""
    open: list[HumanPair]
    """Pairs that nobody has judged, which it is asked about as well."""
    known: Mapping[int, JudgedDraws]
    """Self pairs that are learned from on the draws they were judged on."""


def load_pairs(folder: RunFolder, policy: Policy, request: TrainRequest | EvaluateRequest) -> PairData:
    """The pairs of a run; ValueError where a step could not learn from them.

    Prompts are encoded of those alone that a step draws, and of none where nothing is learned: what is judged
    has its prompts encoded by itself.
    """
    pairs, training = folder.pairs(), request if isinstance(request, TrainRequest) else None
    sides: dict[Source, list[int]] = {side: _indices(pairs, side) for side in ("human", "self", "tie")}
    drawn = sorted(_drawn(sides, training)) if training else []
    prompts = list(dict.fromkeys(pairs[index].prompt for index in drawn))
    row_of = {prompt: row for row, prompt in enumerate(prompts)}
    distributed.from_main(lambda: _require_as_given(folder.path, pairs))
    latents = [_both_latents(folder.path, pair) for pair in pairs]
    _require_one_shape(pairs, latents, policy.backbone.latent_shape(request.sampling.size))
    _require_own_space(folder.path, pairs, policy.backbone.latent_space)
    judged, unjudged = _to_judge(pairs), set(_indices(pairs, "open")[:MAX_OPEN_JUDGED])
    asked = {
        index: HumanPair(pair.id, pair.prompt, both, pair.held_out or pair.source == "open")
        for index, (pair, both) in enumerate(zip(pairs, latents, strict=True))
    }
    return PairData(
        latents=latents,
        prompt_rows=[row_of.get(pair.prompt, -1) for pair in pairs],
        conditioning=_encode(policy, [*prompts, ""]) if drawn else {},
        sides=sides,
        human=[one for index, one in asked.items() if index in judged],
        open=[one for index, one in asked.items() if index in unjudged],
        known={
            index: draws
            for index in sides["self"]
            if training and (draws := judged_draws(folder.path, pairs[index], training, policy.backbone))
        },
    )


def _drawn(sides: Mapping[Source, list[int]], request: TrainRequest) -> set[int]:
    """Indices of the pairs that some step draws: of ten thousand a training may learn from a part."""
    config, found = request.optimisation, set[int]()
    mixer, ties = _mixers(sides, config, request.mixup.self_fraction)
    learned = len(sides["human"]) + len(sides["self"])
    for n in range(config.steps * config.batch_pairs if learned else 0):
        side, index = mixer.draw(n)
        found.add(sides[side][index])
        if len(found) == learned:
            break
    held = min(config.steps * ties_in_a_step(config), len(sides["tie"]))
    return found | {sides["tie"][ties.draw(n)[1]] for n in range(held) if ties}


def _to_judge(pairs: list[TrainingPair]) -> frozenset[int]:
    """Indices of the human pairs that the judge is asked about: all that are held out, and so many others."""
    held_out = [index for index, pair in enumerate(pairs) if pair.held_out]
    learned = _indices(pairs, "human")
    learned.sort(key=lambda index: hashlib.sha256(pairs[index].id.encode()).digest())
    return frozenset([*held_out, *learned[:MAX_LEARNED_JUDGED]])


def _require_as_given(run: Path, pairs: list[TrainingPair]) -> None:
    """ValueError where latents are not those that the run was made of. Files are named by their hash."""
    for file in sorted({ref.file for pair in pairs for ref in (pair.winner, pair.loser)}):
        if (found := sha256_file(run / file)) != Path(file).stem:
            raise ValueError(
                f"{run / file} is broken: it was altered since this run was made (its hash is {found}). "
                "Train the round anew."
            )


def _both_latents(run: Path, pair: TrainingPair) -> Tensor:
    return torch.stack([load_latents(run, ref.file, ref.row) for ref in (pair.winner, pair.loser)])


def _require_one_shape(pairs: list[TrainingPair], latents: list[Tensor], drawn: tuple[int, ...]) -> None:
    """ValueError where what is learned from is not of the shape that is drawn."""
    for pair, both in zip(pairs, latents, strict=True):
        if pair.source != "open" and not pair.held_out and both.shape[1:] != drawn:
            found, asked = (" x ".join(map(str, shape)) for shape in (both.shape[1:], drawn))
            raise ValueError(
                f"Latents of the pair {pair.id} are {found}, those of the images to draw {asked}, and a step "
                "learns from images of one size. Import pairs with the --size that sampling.size says."
            )


def _require_own_space(run: Path, pairs: list[TrainingPair], own: str) -> None:
    """ValueError where another model's autoencoder encoded them: many have latents of the same shape."""
    for file in {ref.file for pair in pairs for ref in (pair.winner, pair.loser)}:
        found = space_of(run / file)
        if found not in (None, own):
            raise ValueError(
                f"{run / file} holds latents of another autoencoder ({found}) than the model's ({own}). "
                "Import the pairs with this model."
            )


def _indices(pairs: list[TrainingPair], side: str) -> list[int]:
    return [index for index, pair in enumerate(pairs) if pair.source == side and not pair.held_out]


def _encode(policy: Policy, prompts: list[str], batch: int = 64) -> Conditioning:
    """On the CPU: thousands of prompts fill a GPU, and a step needs a few."""
    encoded: Conditioning = {}
    with policy.backbone.encoding():
        for first in range(0, len(prompts), batch):
            for name, part in policy.backbone.encode_prompts(prompts[first : first + batch]).items():
                if name not in encoded:
                    encoded[name] = part.new_empty((len(prompts), *part.shape[1:]), device="cpu")
                encoded[name][first : first + batch] = part
    return encoded


class Batch:
    """Pairs of one step, sent to the device when they are used: of its parts one at a time is there.

    Winners come first, then losers; everything else is duplicated for both.
    """

    def __init__(
        self,
        latents_P2: Tensor,
        noise_P: Tensor,
        timesteps_P: Tensor,
        human_P: Tensor,
        prompt_rows: list[int],
        conditioning: Conditioning,
        device: torch.device,
        known_P: Sequence[BothErrors | None] = (),
    ) -> None:
        self._latents_P2, self._noise_P, self._timesteps_P = latents_P2, noise_P, timesteps_P
        self._human_P, self._conditioning, self._device = human_P, conditioning, device
        self._known_P = known_P or [None] * len(human_P)
        self.prompt_rows = prompt_rows

    def __len__(self) -> int:
        return len(self._human_P)

    @cached_property
    def reference_error_2P(self) -> Tensor:
        """The frozen reference's, 0 where it is not known."""
        return self._sent(torch.tensor([error or 0.0 for error in self._known_2P]))

    @cached_property
    def unknown_M(self) -> Tensor:
        """Rows of the 2P where it is not known."""
        unknown = [row for row, error in enumerate(self._known_2P) if error is None]
        return self._sent(torch.tensor(unknown, dtype=torch.long))

    @property
    def _known_2P(self) -> list[float | None]:
        return [own and own[side] for side in (0, 1) for own in self._known_P]

    @cached_property
    def latents_2P(self) -> Tensor:
        return self._sent(torch.cat([self._latents_P2[:, 0], self._latents_P2[:, 1]]))

    @cached_property
    def noise_2P(self) -> Tensor:
        # One noise and one timestep for both: the margin compares images, not draws.
        return self._sent(self._noise_P).repeat(2, 1, 1, 1)

    @cached_property
    def timesteps_2P(self) -> Tensor:
        return self._sent(self._timesteps_P).repeat(2)

    @cached_property
    def human_P(self) -> Tensor:
        return self._sent(self._human_P)

    @cached_property
    def conditioning_2P(self) -> Conditioning:
        told_P = take(self._conditioning, self.prompt_rows)
        told_P = {name: self._sent(tensor) for name, tensor in told_P.items()}
        return join(told_P, told_P)

    def _sent(self, tensor: Tensor) -> Tensor:
        """To the device, without waiting for what that still computes."""
        if self._device.type == "cuda":
            # From other memory a copy may wait.
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def slice(self, first: int, last: int) -> Batch:
        cut = slice(first, last)
        return Batch(
            self._latents_P2[cut],
            self._noise_P[cut],
            self._timesteps_P[cut],
            self._human_P[cut],
            self.prompt_rows[cut],
            self._conditioning,
            self._device,
            self._known_P[cut],
        )

    def parts(self, most: int) -> Iterator[Batch]:
        """In order, each of at most so many pairs."""
        return (self.slice(first, first + most) for first in range(0, len(self), most))


class Batches:
    """The batch of each step, as a function of pairs, settings and the step alone."""

    def __init__(
        self,
        data: PairData,
        backbone: Backbone,
        optimisation: Optimisation,
        *,
        self_fraction: float,
        guided: bool = True,
    ) -> None:
        self._data, self._backbone, self._config = data, backbone, optimisation
        self._mixer, self._ties = _mixers(data.sides, optimisation, self_fraction)
        learned = [index for indices in data.sides.values() for index in indices]
        channels, height, width = data.latents[learned[0]].shape[1:]
        self._shape = (channels, height, width)
        # Where images are drawn without guidance nothing is ever drawn without its prompt.
        self._empty_share = optimisation.empty_prompt_share if guided else 0.0

    def at(self, step: int) -> Batch:
        """The pairs of a step, from 0, with one timestep and one noise for winner and loser."""
        data, pairs = self._data, self.pairs_at(step)
        drawn_P, noise_P, emptied = self._new("step", step, len(pairs))
        known_P: list[BothErrors | None] = [None] * len(pairs)
        for row, (pair, n) in enumerate(zip(pairs, self._numbers(step), strict=True)):
            if known := data.known.get(pair):
                draw = self._order(pair, len(known))[self._mixer.turn(n) % len(known)]
                drawn_P[row], noise_P[row] = known.draw(draw, self._shape, self._backbone.num_train_timesteps)
                if not emptied[row]:  # The judge always had the prompt.
                    known_P[row] = known.errors[draw]
        empty_row = len(data.conditioning["prompt_embeds"]) - 1
        rows = [
            empty_row if without else data.prompt_rows[pair]
            for pair, without in zip(pairs, emptied, strict=True)
        ]
        human_P = torch.tensor([self._mixer.draw(n)[0] == "human" for n in self._numbers(step)])
        return self._batch(pairs, drawn_P, noise_P, human_P, rows, known_P)

    def ties_at(self, step: int) -> Batch | None:
        """The tied pairs that a step, from 0, holds, on draws of their own; None where there is none."""
        if self._ties is None:
            return None
        count = ties_in_a_step(self._config)
        drawn = (self._ties.draw(n)[1] for n in range(step * count, (step + 1) * count))
        pairs = [self._data.sides["tie"][index] for index in drawn]
        drawn_P, noise_P, _ = self._new("ties", step, count)
        rows = [self._data.prompt_rows[pair] for pair in pairs]
        return self._batch(pairs, drawn_P, noise_P, torch.zeros(count, dtype=torch.bool), rows)

    def _batch(
        self,
        pairs: list[int],
        drawn_P: Tensor,
        noise_P: Tensor,
        human_P: Tensor,
        rows: list[int],
        known_P: Sequence[BothErrors | None] = (),
    ) -> Batch:
        return Batch(
            torch.stack([self._data.latents[pair] for pair in pairs]),
            noise_P,
            self._backbone.timesteps(drawn_P, self._shape),
            human_P,
            rows,
            self._data.conditioning,
            self._backbone.device,
            known_P,
        )

    def pairs_at(self, step: int) -> list[int]:
        """Which pairs of the run a step, from 0, learns from."""
        drawn = (self._mixer.draw(n) for n in self._numbers(step))
        return [self._data.sides[side][index] for side, index in drawn]

    def _numbers(self, step: int) -> range:
        """Of the pairs drawn in a step, counted over the whole run."""
        return range(step * self._config.batch_pairs, (step + 1) * self._config.batch_pairs)

    def _new(self, what: str, step: int, count: int) -> tuple[Tensor, Tensor, list[bool]]:
        """Timestep, noise and whether to leave out the prompt, new for every step."""
        generator = generator_of(f"{what}\n{self._config.noise_seed}\n{step}")
        steps = self._backbone.num_train_timesteps
        drawn_P = stratified_timesteps(count, steps, generator, self._config.timesteps)
        noise_P = torch.randn((count, *self._shape), generator=generator)
        emptied_P = torch.rand(count, generator=generator) < self._empty_share
        return drawn_P, noise_P, emptied_P.tolist()

    def _order(self, pair: int, count: int) -> list[int]:
        """In which a pair's draws are learned from: they are in the order of their timesteps."""
        generator = generator_of(f"order\n{self._config.noise_seed}\n{pair}")
        return torch.randperm(count, generator=generator).tolist()


def _mixers(
    sides: Mapping[Source, list[int]], config: Optimisation, self_fraction: float
) -> tuple[Mixer, Mixer | None]:
    """Of the pairs to learn from, and of the ties, None where there are none."""
    human, self_made, ties = (len(sides[side]) for side in ("human", "self", "tie"))
    seed = config.noise_seed
    learned = Mixer(human_pairs=human, self_pairs=self_made, self_fraction=self_fraction, noise_seed=seed)
    held = Mixer(human_pairs=ties, self_pairs=0, self_fraction=0.0, noise_seed=seed) if ties else None
    return learned, held
