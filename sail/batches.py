"""The pairs of a train run, and which of them a step learns from, on which draws. Knows no optimiser.

P pairs of a batch, 2P their winners, then their losers; D pairs of the run, B fixed draws of a pair;
C H W latent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sail.backbones.base import Backbone, Conditioning, take
from sail.config import Optimisation
from sail.cost import MAX_LEARNED_JUDGED
from sail.loss import stratified_timesteps
from sail.mixup import Mixer
from sail.monitors import HumanPair
from sail.policy import Policy
from sail.proposing import load_latents
from sail.records import Source, TrainingPair
from sail.runfolder import RunFolder

MAX_OPEN_JUDGED = 64
"""Open pairs that the judge is asked about: what people label next, however many are drawn."""

PairDraw = tuple[int, int]
"""A pair of the run, and which of its own draws."""


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
        draws: Sequence[PairDraw] = (),
    ) -> None:
        self._own = (latents_P2, noise_P, timesteps_P, human_P, prompt_rows, conditioning, device, draws)
        self.prompt_rows = prompt_rows
        self.draws = draws
        """Where draws are fixed: which pair and which of its draws each row is."""
        self.latents_2P = _sent(torch.cat([latents_P2[:, 0], latents_P2[:, 1]]), device)
        # One noise and one timestep for both: the margin compares images, not draws.
        self.noise_2P = _sent(noise_P, device).repeat(2, 1, 1, 1)
        self.timesteps_2P = _sent(timesteps_P, device).repeat(2)
        self.human_P = _sent(human_P, device)
        self.conditioning_2P = take(conditioning, [*prompt_rows, *prompt_rows])

    def __len__(self) -> int:
        return len(self.human_P)

    def slice(self, first: int, last: int) -> Batch:
        latents_P2, noise_P, timesteps_P, human_P, rows, conditioning, device, draws = self._own
        cut = slice(first, last)
        cut_tensors = (latents_P2[cut], noise_P[cut], timesteps_P[cut], human_P[cut])
        return Batch(*cut_tensors, rows[cut], conditioning, device, draws[cut])


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On `device`, without waiting for what it still computes."""
    return tensor.to(device, non_blocking=True)


class Batches:
    """The batch of each step, as a function of pairs, settings and the step alone."""

    def __init__(
        self, data: PairData, backbone: Backbone, optimisation: Optimisation, *, self_fraction: float
    ) -> None:
        self._data, self._backbone, self._config = data, backbone, optimisation
        self._mixer = Mixer(
            human_pairs=len(data.sides["human"]),
            self_pairs=len(data.sides["self"]),
            self_fraction=self_fraction,
            noise_seed=optimisation.noise_seed,
        )
        self._shape = data.latents[0].shape[1:]
        # Where guidance is distilled nothing is ever drawn without its prompt.
        self._empty_share = 0.0 if backbone.distilled else optimisation.empty_prompt_share

    def at(self, step: int) -> Batch:
        """The pairs of a step, from 0, with one timestep and one noise for winner and loser."""
        config, data, pairs = self._config, self._data, self.pairs_at(step)
        if config.draws_per_pair is None:
            draws: list[PairDraw] = []
            drawn_P, noise_P, emptied = self._fresh(step)
        else:
            turns = [self._mixer.turn(n) % config.draws_per_pair for n in self._numbers(step)]
            draws = list(zip(pairs, turns, strict=True))
            drawn_P, noise_P, emptied = self._fixed(draws, config.draws_per_pair)
        empty_row = len(data.conditioning["prompt_embeds"]) - 1
        return Batch(
            torch.stack([data.latents[pair] for pair in pairs]),
            noise_P,
            self._backbone.timesteps(drawn_P, self._shape),
            torch.tensor([self._mixer.draw(n)[0] == "human" for n in self._numbers(step)]),
            [
                empty_row if without else data.prompt_rows[pair]
                for pair, without in zip(pairs, emptied, strict=True)
            ],
            data.conditioning,
            self._backbone.device,
            draws,
        )

    def pairs_at(self, step: int) -> list[int]:
        """Which pairs of the run a step, from 0, learns from."""
        drawn = (self._mixer.draw(n) for n in self._numbers(step))
        return [self._data.sides[side][index] for side, index in drawn]

    def _numbers(self, step: int) -> range:
        """Of the pairs drawn in a step, counted over the whole run."""
        return range(step * self._config.batch_pairs, (step + 1) * self._config.batch_pairs)

    def _fresh(self, step: int) -> tuple[Tensor, Tensor, list[bool]]:
        """Timestep, noise and whether to leave out the prompt, new for every step."""
        count, generator = self._config.batch_pairs, self._generator(f"step\n{{}}\n{step}")
        drawn_P = self._timesteps(count, generator)
        noise_P = torch.randn((count, *self._shape), generator=generator)
        return drawn_P, noise_P, self._emptied(count, generator)

    def _fixed(self, draws: Sequence[PairDraw], count: int) -> tuple[Tensor, Tensor, list[bool]]:
        """The same for a pair's own draws, whose timesteps are stratified over its `count` draws."""
        timesteps, noise, emptied = [], [], []
        for pair, draw in draws:
            of_pair = self._generator(f"pair\n{{}}\n{pair}")
            timesteps.append(self._timesteps(count, of_pair)[draw])
            emptied.append(self._emptied(count, of_pair)[draw])
            of_draw = self._generator(f"draw\n{{}}\n{pair}\n{draw}")
            noise.append(torch.randn(self._shape, generator=of_draw))
        return torch.stack(timesteps), torch.stack(noise), emptied

    def _timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        return stratified_timesteps(
            count, self._backbone.num_train_timesteps, generator, self._config.timesteps
        )

    def _emptied(self, count: int, generator: torch.Generator) -> list[bool]:
        return (torch.rand(count, generator=generator) < self._empty_share).tolist()

    def _generator(self, name: str) -> torch.Generator:
        digest = hashlib.sha256(name.format(self._config.noise_seed).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class ReferenceErrors:
    """The frozen reference's errors on the fixed draws of every pair, each computed when first asked for."""

    def __init__(self, pairs: int, draws: int, device: torch.device) -> None:
        self._error_DB2 = torch.zeros(pairs, draws, 2, device=device)
        self._known: set[PairDraw] = set()
        self._new: set[PairDraw] = set()

    def of(self, draws: Sequence[PairDraw], compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Errors of winners, then of losers: (2P,). `compute` is asked for unknown ones, by row of 2P."""
        device, count = self._error_DB2.device, len(draws)
        pair_P, draw_P = _sent(torch.tensor(draws), device).unbind(1)
        # A batch that is larger than the pairs may hold the same draw twice.
        first_row = {draw: row for row, draw in reversed(list(enumerate(draws)))}
        unknown = [draw for draw in first_row if draw not in self._known and draw not in self._new]
        if unknown:
            missing = [first_row[draw] for draw in unknown]
            row_M = _sent(torch.tensor([*missing, *(row + count for row in missing)]), device)
            winner_M = row_M[: len(missing)]
            self._error_DB2[pair_P[winner_M], draw_P[winner_M]] = compute(row_M).view(2, -1).T
            self._new.update(unknown)
        return self._error_DB2[pair_P, draw_P].T.flatten()

    def rows(self, draws: Sequence[PairDraw]) -> Tensor:
        """Of winner and loser of each draw that was asked for: (P, 2)."""
        pair_P, draw_P = _sent(torch.tensor(draws), self._error_DB2.device).unbind(1)
        return self._error_DB2[pair_P, draw_P]

    def keep(self, draws: Sequence[PairDraw], error_P2: Tensor) -> None:
        """The step is done: the errors of its draws, whichever process computed them, stay."""
        first_row = {draw: row for row, draw in reversed(list(enumerate(draws)))}
        row_M = _sent(torch.tensor(list(first_row.values())), error_P2.device)
        pair_M, draw_M = _sent(torch.tensor(list(first_row)), error_P2.device).unbind(1)
        self._error_DB2[pair_M, draw_M] = error_P2[row_M]
        self._known.update(first_row)
        self._new = set()

    def forget(self) -> None:
        """The step is begun again: what it added is computed again, with as many pairs at once as then."""
        self._new = set()

    def state(self) -> dict[str, Any]:
        """For a checkpoint. Computed again, with other rows beside them, their last bits would differ."""
        return {"errors": self._error_DB2.cpu(), "known": sorted(self._known)}

    def load_state(self, state: dict[str, Any]) -> None:
        self._error_DB2.copy_(state["errors"])
        self._known = {(pair, draw) for pair, draw in state["known"]}
