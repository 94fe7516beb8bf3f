"""What a run is asked to do. Knows no tensor and computes nothing; wrong values never get in.

A model may bring its own settings for the loop (`LoopSettings.for_model`); the defaults are for one that
brings none, and `LoopSettings.paper()` has the paper's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

SCHEMA_VERSION: Final = 1
MAX_PROMPT_CHARS = 2000
INDEX: Final = "model_index.json"
"""In every model's folder: what it consists of."""
OWN_SETTINGS: Final = "sail.json"
"""Beside model_index.json: the settings of the loop that were found to work on that model."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Config(BaseModel):
    """Frozen; a key it does not know is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def first_fault(error: ValidationError) -> str:
    """Where the first wrong value stands and what is wrong with it, as a sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where}: Nothing is called so here. Is it misspelt, or in another place?"
    if first["type"] in ("model_type", "dict_type"):
        return f"{where or 'All of it'}: It has to be an object in braces, with names and values."
    message = first["msg"].removeprefix("Value error, ").rstrip(".") + "."
    return f"{where}: {message}" if where else message


def _require_candidates(name: str, pairs: int, candidates: int) -> None:
    """`name` is what the number of pairs is called in the settings, or in a request."""
    if 2 * pairs > candidates:
        raise ValueError(
            f"{pairs} pairs of a prompt ({name}) need {2 * pairs} candidates (num_candidates), "
            f"got {candidates}. Set num_candidates to at least {2 * pairs}, "
            f"or {name} to at most {candidates // 2}."
        )


def _checked_share(timesteps: tuple[float, float]) -> tuple[float, float]:
    low, high = timesteps
    if not 0 <= low < high <= 1:
        raise ValueError(f"timesteps must be 0 <= low < high <= 1, got {timesteps}.")
    return timesteps


TimestepRange = Annotated[tuple[float, float], AfterValidator(_checked_share)]
"""Share of the training timesteps that draws are taken from: (0, 1) is all of them, 0 the least noise."""
Choose = Literal["best_worst", "random"]
"""Which two candidates of a prompt become its self pair; the paper compares both."""
MAX_SIDE = 8192
"""Pixels; nothing larger is drawn, and no file with a larger image is decoded."""
MOST_AT_ONCE: Final = 65_536
"""Images or pairs that are computed together; more is a slip of the hand."""
MOST_CANDIDATES: Final = 1_000
"""Of one prompt."""
MOST_PROMPTS: Final = 1_000_000
"""In a round."""
Pixels = Annotated[int, Field(ge=8, le=MAX_SIDE)]
DrawStrength = Annotated[float, Field(ge=0, le=1)]
"""Share of the policy's adapter that candidates are drawn with: 1 the policy (the paper), 0 the base model.
A policy prefers images that carry its own marks, whatever people like; a weaker one's carry fewer, and are
still better liked than base's."""
Precision = Literal["auto", "float32", "bfloat16"]
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)]


def _require_whole(file: str) -> None:
    """Reads the header of a checkpoint alone, which says how long the file has to be."""
    try:
        with safe_open(file, framework="numpy"):
            return
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} cannot be read as safetensors: {error}. If it was downloaded, download it again."
        ) from error


class ModelRef(Config):
    """A text-to-image model: a diffusers folder, a .safetensors checkpoint, or a Hugging Face name with its
    revision."""

    source: str
    revision: str | None = None
    """Commit of the hub model; for a checkpoint without a folder beside it, of its configuration there."""
    precision: Precision = "auto"
    """Of the model's arithmetic; `auto` is bfloat16 on a GPU that has it by itself and float32 elsewhere.
    Latents, errors and adapters are float32 either way."""

    @property
    def folder(self) -> Path | None:
        """Where its configuration lies; None where there is no such model on this machine."""
        # os.path, since pathlib raises on names that are too long.
        if os.path.isdir(self.source):
            return Path(self.source)
        if os.path.isfile(self.source):
            return Path(self.source).with_suffix("")
        if not HUB_ID.fullmatch(self.source):
            return None
        # Takes a fifth of a second to load, before a waiting person.
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.source, INDEX, revision=self.revision)
        return Path(found).parent if isinstance(found, str) else None

    def described(self, file: str, key: str) -> Any:
        """A value of its configuration; None where that cannot be seen without loading it."""
        folder = self.folder
        try:
            return json.loads((folder / file).read_text(encoding="utf-8")).get(key) if folder else None
        except (OSError, ValueError, AttributeError):
            return None

    @property
    def pipeline(self) -> str | None:
        """Name of the diffusers pipeline that it is one of; None where that cannot be seen."""
        found = self.described(INDEX, "_class_name")
        return found if isinstance(found, str) else None

    @property
    def is_schnell(self) -> bool:
        """Whether it can be seen to be Flux without an input for guidance."""
        embeds = self.described("transformer/config.json", "guidance_embeds")
        return self.pipeline == "FluxPipeline" and embeds is False

    def checked(self) -> ModelRef:
        """Raise ValueError where the source can be seen to be unusable; return self otherwise."""
        # os.path, since pathlib raises on names that are too long.
        if self.source and os.path.isfile(os.path.join(self.source, INDEX)):
            return self
        if os.path.isfile(self.source):
            if self.source.endswith(".safetensors"):
                _require_whole(self.source)
                return self
            raise ValueError(
                f"{self.source} is no .safetensors file, and a pickle can run code of its own. "
                "Convert it to safetensors."
            )
        if os.path.exists(self.source):
            raise ValueError(
                f"{self.source} is not a diffusers model: it has no model_index.json. "
                "Give the folder that `save_pretrained` wrote."
            )
        if HUB_ID.fullmatch(self.source) and ".." not in self.source:
            if self.revision is None:
                raise ValueError(
                    f"No model folder at {self.source}; as a Hugging Face name it needs a revision "
                    "(a commit hash)."
                )
            return self
        raise ValueError(
            f"No model at {self.source!r}. "
            "Give a folder with a model_index.json, a .safetensors file or a Hugging Face name (owner/model)."
        )


class Lora(Config):
    rank: int = Field(8, ge=1, le=1024)
    alpha: int | None = None
    """Scale of the update is alpha / rank; None means alpha = rank."""
    targets: tuple[str, ...] | None = None
    """Names of modules to adapt; none are the backbone family's own list."""


class Sampling(Config):
    solver: Literal["auto", "dpm++", "ddim", "ddpm"] = "auto"
    """`auto` is dpm++, and Euler steps for flow matching (SD3, Flux), which has no other."""
    steps: int = Field(20, ge=1, le=1000)
    guidance: float = Field(5.0, ge=0, le=100)
    """Classifier-free guidance scale; 1 or less draws without guidance. Where guidance is distilled into a
    model it is told the number instead (Flux dev) or knows none (Flux schnell)."""
    chunk: int = Field(32, ge=1, le=MOST_AT_ONCE)
    """Images drawn together. Part of the request, because bits change with the batch size."""
    size: tuple[Pixels, Pixels] | None = None
    """Height and width in pixels; None takes the model's own."""

    def is_guided(self, *, distilled: bool) -> bool:
        """Whether each step of the solver asks with and without the prompt."""
        return self.guidance > 1 and not distilled


FAMILIES: Final = {
    "StableDiffusionPipeline": Sampling(guidance=7.5),
    "StableDiffusionXLPipeline": Sampling(guidance=5.0),
    "StableDiffusion3Pipeline": Sampling(steps=28, guidance=7.0),
    "FluxPipeline": Sampling(steps=28, guidance=3.5),
}
"""Pipelines of diffusers that are known here, as model_index.json names them, and how their models are drawn
where nothing else is said: as by the pipeline's own defaults, Stable Diffusion's and SDXL's in 20 steps."""
SCHNELL: Final = Sampling(steps=4, guidance=0.0)
"""Flux without an input for guidance, which was distilled to few steps as well."""


def _sampling_of(model: ModelRef) -> Sampling:
    """How its family is drawn; the defaults where that cannot be seen."""
    return SCHNELL if model.is_schnell else FAMILIES.get(model.pipeline or "", Sampling())


class Scoring(Config):
    """How the judge turns denoising errors into an implicit reward."""

    draws: int = Field(10, ge=2, le=1_000)
    """K: (timestep, noise) draws an image, timesteps stratified."""
    average: Literal["normalised", "mean"] = "normalised"
    """`normalised`: each draw is divided by its own spread within prompts; `mean`: the paper's plain mean."""
    shared: bool = True
    """Candidates of one prompt are scored on the same draws; false gives each its own, which adds their
    noise to every comparison."""
    timesteps: TimestepRange = (0.0, 1.0)
    chunk: int = Field(64, ge=1, le=MOST_AT_ONCE)
    """Images that the denoiser sees at once while it judges."""
    reference: Literal["base", "parent"] = "base"
    """`base`: the pretrained model; `parent`: the adapter the judge was trained from."""

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, values: Any) -> Any:
        """What holds `bank_seed`, which is gone, has 0: nothing set it."""
        if isinstance(values, dict) and values.get("bank_seed") == 0:
            return {name: value for name, value in values.items() if name != "bank_seed"}
        return values


class Loss(Config):
    objective: Literal["dpo", "ipo", "two_sided", "winner", "mirrored"] = "dpo"
    """`dpo`: Diffusion-DPO; `ipo`: a target for the margin in place of a sigmoid; `two_sided`: winner up and
    loser down, each bounded by a sigmoid of its own; `winner`: plain fine-tuning on winners; `mirrored`: of a
    loser its target's mirror image at the reference's prediction is learned (after DiffusionNFT, arXiv
    2509.16117), which is the opposite of what the loser teaches; a DPO loss falls with every change that
    makes losers worse, whichever way."""
    mirrored_step: float = Field(0.5, gt=0, le=10)
    """`mirrored`: this share of the way from the reference's prediction to the policy's is to arrive at the
    target, so that the policy goes 1 / `mirrored_step` times as far."""
    beta: float = Field(2000.0, gt=0, le=1e9)
    """Strength of the pull to the reference. Errors are means over latent dimensions and the margin has
    the factor 1/2 (the convention in which the paper's 5000 is quoted)."""
    winner_penalty: float = Field(0.0, ge=0, le=1_000)
    """lambda of `margin - lambda * beta/2 * max(0, -gain(winner))`: ground the winner loses."""
    winner_pull: float = Field(0.0, ge=0, le=1_000)
    """Weight of plain learning of what people chose, beside the comparison: for human pairs
    `- winner_pull * beta/2 * gain(winner)` is added to the loss. A comparison alone is won most easily by
    making losers worse."""
    hold_ties: float = Field(0.0, ge=0, le=1_000)
    """Weight of staying as it was where people saw no difference: `hold_ties * beta/2` times the squared
    distance of the policy's predictions from those of the adapter that the round began with (base in the
    first), on images of tied pairs under their prompt, is added to the loss of a step. Two images are mostly
    tied where the prompt settles what somebody cares for; without it what is liked spreads to prompts that
    ask for something else."""
    safeguard: bool = False
    """Take what losers teach only so far that a small step along the gradient does not raise the winners'
    error (after Diffusion-SDPO, arXiv 2511.03317)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of people's labels taken to be wrong (conservative DPO)."""

    @model_validator(mode="after")
    def _used(self) -> Loss:
        unused = {
            "winner_penalty": self.objective not in ("dpo", "ipo") and self.winner_penalty > 0,
            "winner_pull": self.objective == "winner" and self.winner_pull > 0,
            "safeguard": self.objective in ("winner", "mirrored") and self.safeguard,
            "label_smoothing": self.objective not in ("dpo", "mirrored") and self.label_smoothing > 0,
        }
        for name in (name for name, is_unused in unused.items() if is_unused):
            raise ValueError(f"The objective {self.objective} has no {name}. Set {name} to 0 or false.")
        return self


class Mixup(Config):
    self_fraction: float = Field(0.25, ge=0, le=1)
    """Share of self pairs among the pairs drawn (the paper's alpha); in a loop at most, see `most_times`."""
    most_times: float | None = Field(4, gt=0)
    """With few self pairs their share is lowered until none is drawn more than so many times as often as a
    human pair; None: never (the paper). What a person sets for a round holds as it is."""


class Optimisation(Config):
    steps: int = Field(200, ge=1, le=1_000_000)
    batch_pairs: int = Field(16, ge=1, le=MOST_AT_ONCE)
    """Pairs in one optimiser step, over all processes and accumulated micro-batches."""
    micro_batch_pairs: int | None = Field(None, ge=1, le=MOST_AT_ONCE)
    """Of them, pairs that a process computes at once; None: all on a GPU, at most 16 elsewhere. Halved where
    memory runs out, until activations are computed again as well: the mathematics stays the same."""
    self_pair_draws: Literal["new", "judged"] = "judged"
    """`judged`: a self pair is learned from on the draws (timestep, noise) that it was judged on, in turn,
    whose reference errors the judge knows already (`mirrored` needs predictions, and asks again); where it
    judged otherwise (other timesteps, draws not shared, another reference), and for human pairs, as with
    `new`: new ones in every step (the paper)."""
    learning_rate: float = Field(2e-4, gt=0, le=1)
    warmup_steps: int = Field(10, ge=0, le=1_000_000)
    timesteps: TimestepRange = (0.0, 1.0)
    empty_prompt_share: float = Field(0.1, ge=0, le=1)
    """Share of pairs trained without their prompt, so that guidance's empty branch moves as well."""
    max_grad_norm: float = Field(1.0, gt=0)
    noise_seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, values: Any) -> Any:
        """What holds `draws_per_pair`, which is gone, is from before the judge's draws and goes on so."""
        if isinstance(values, dict) and "draws_per_pair" in values:
            kept = {name: value for name, value in values.items() if name != "draws_per_pair"}
            return {**kept, "self_pair_draws": "new"}
        return values


class Monitoring(Config):
    """What is measured after training, and when a round is not accepted."""

    prompts: tuple[Prompt, ...] = ()
    """Prompts of the images that diversity and saturation are measured on; none: both are left out."""
    per_prompt: int = Field(4, ge=2, le=MOST_CANDIDATES)
    noise_seed: int = 1_000_003
    preview_prompts: int = Field(4, ge=0)
    """So many of `prompts` are drawn at step 0 and at every checkpoint."""
    min_judge_accuracy: float = Field(0.5, ge=0, le=1)
    """The gate closes where so few held-out pairs come out right by chance, in less than one of forty times,
    from a judge that is right in this share."""
    min_diversity_ratio: float = Field(0.6, ge=0, le=10)
    max_saturation_ratio: float = Field(2.0, ge=1)
    """The gate closes outside [1 / this, this]."""
    halvings: int = Field(3, ge=0, le=6)
    """Where the gate refuses a round's images, the largest part of its training that it accepts is looked for
    by so many halvings (3 find it to an eighth) and kept; 0: all or nothing."""


class _Request(Config):
    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelRef
    round: int = Field(0, ge=0)


class ProposeRequest(_Request):
    """Draw candidates for prompts; with `scoring`, judge them and rank self pairs."""

    kind: Literal["propose"] = "propose"
    adapter: str | None = None
    """sha256 of the policy's adapter, which lies in inputs/adapters/; None draws from the base model."""
    reference_adapter: str | None = None
    """sha256 of the reference to score against; None is the base model."""
    prompts: tuple[Prompt, ...] = Field(min_length=1)
    num_candidates: int = Field(8, ge=2, le=MOST_CANDIDATES)
    noise_seed: int = 0
    sampling: Sampling = Sampling()
    scoring: Scoring | None = None
    draw_strength: DrawStrength = 1.0
    choose: Choose = "best_worst"
    self_pairs_per_prompt: int = Field(1, ge=1)
    """With `best_worst`: best against worst, second best against second worst, and so on."""
    min_margin: float = Field(0.0, ge=0)
    """In nats: pairs with a smaller one are no self pairs."""
    pairs_to_show: int = Field(0, ge=0)
    """So many pairs of a prompt's candidates are for people, the most different ones first."""
    beta: float = Field(2000.0, gt=0)
    """Scale of the implicit reward; the beta that the adapter was trained with."""

    @model_validator(mode="after")
    def _enough(self) -> ProposeRequest:
        _require_candidates("pairs_to_show", self.pairs_to_show, self.num_candidates)
        own = self.self_pairs_per_prompt if self.scoring else 0
        _require_candidates("self_pairs_per_prompt", own, self.num_candidates)
        return self

    @model_validator(mode="after")
    def _judge(self) -> ProposeRequest:
        if self.scoring is not None and self.adapter == self.reference_adapter:
            raise ValueError(
                "A policy scored against itself rewards every image with 0. Give another reference."
            )
        return self


class TrainRequest(_Request):
    """Optimise one adapter on pairs.jsonl, then measure it and decide whether it is accepted."""

    kind: Literal["train"] = "train"
    parent_adapter: str | None = None
    """sha256 of the adapter to start from, and, with reference `parent`, to be measured against."""
    reference: Literal["parent", "base"] = "parent"
    lora: Lora = Lora()
    loss: Loss = Loss()
    mixup: Mixup = Mixup()
    optimisation: Optimisation = Optimisation()
    scoring: Scoring = Scoring()
    sampling: Sampling = Sampling()
    monitoring: Monitoring = Monitoring()
    checkpoint_every: int = Field(25, ge=1)

    @property
    def reuses_judged_draws(self) -> bool:
        """Whether it learns from self pairs on the judge's draws, where that judged with these settings."""
        # Of the reference, or of the judge itself: its parent.
        known = self.scoring.reference == "base" or self.reference == "parent"
        same_timesteps = self.optimisation.timesteps == self.scoring.timesteps
        judged = self.optimisation.self_pair_draws == "judged"
        return judged and known and self.scoring.shared and same_timesteps


class EvaluateRequest(_Request):
    """Measure one adapter: judge accuracy on the held-out pairs of pairs.jsonl, diversity, saturation."""

    kind: Literal["evaluate"] = "evaluate"
    adapter: str | None = None
    beta: float = Field(2000.0, gt=0)
    scoring: Scoring = Scoring()
    sampling: Sampling = Sampling()
    monitoring: Monitoring = Monitoring()


class ExportRequest(_Request):
    """Write the adapter for other tools, with a model card."""

    kind: Literal["export"] = "export"
    adapter: str
    title: str = "A model aligned with SAIL"
    facts: dict[str, str | int | float | bool | None] = {}
    """Figures for the model card: human and self pairs, agreement, gate, hashes of data."""
    sampling: Sampling = Sampling()
    """How its images were drawn; the model card says how to draw such with diffusers."""
    merged: bool = False
    """Also write the whole pipeline, in float32, with the adapter merged into its weights."""


class Look(Config):
    """One way to draw: the base model, or an adapter at some strength."""

    adapter: str | None = None
    """sha256 of an adapter, which lies in inputs/adapters/; None is the base model."""
    strength: float = Field(1.0, ge=0, le=2)
    """Factor on what the adapter adds: 0 is the base model again, 1 the adapter itself."""


class CompareRequest(_Request):
    """Draw every prompt in several looks from the same starting noise."""

    kind: Literal["compare"] = "compare"
    looks: tuple[Look, ...] = Field(min_length=1, max_length=32)
    prompts: tuple[Prompt, ...] = Field(min_length=1)
    per_prompt: int = Field(1, ge=1)
    """Images of a prompt in each look. Candidate `look * per_prompt + index` starts from the noise of
    `index`, in every look."""
    noise_seed: int = 0
    sampling: Sampling = Sampling()


Request = Annotated[
    ProposeRequest | TrainRequest | EvaluateRequest | ExportRequest | CompareRequest,
    Field(discriminator="kind"),
]
Kind = Literal["propose", "train", "evaluate", "export", "compare"]


def _merged(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        old = values.get(key)
        merged[key] = _merged(old, change) if isinstance(old, dict) and isinstance(change, dict) else change
    return merged


def _bounded(values: Any, error: ValidationError) -> Any:
    """The largest that there may be in the place of what is found too large."""
    values = deepcopy(values)
    for fault in error.errors():
        if fault["type"] == "less_than_equal":
            *way, last = fault["loc"]
            reduce(getitem, way, values)[last] = fault["ctx"]["le"]
    return values


def _require_used(changes: Mapping[str, Any]) -> None:
    """ValueError where a value would be left unused without a word. What was stored of them is still read."""
    of_each_round = (
        (
            "monitoring",
            "prompts",
            "Held-out prompts are taken from the list of prompts. Set monitor_prompts, how many.",
        ),
        ("optimisation", "noise_seed", "It is made of noise_seed in every round. Set that one."),
    )
    for part, name, instead in of_each_round:
        own = changes.get(part)
        if isinstance(own, Mapping) and own.get(name):
            raise ValueError(f"{part}.{name} is no setting of the loop. {instead}")
    lora = changes.get("lora")
    alpha = lora.get("alpha") if isinstance(lora, Mapping) else None
    if isinstance(alpha, int) and alpha < 1:
        raise ValueError(f"lora.alpha must be at least 1, or null for the rank, got {alpha}.")


class LoopSettings(Config):
    """One project's settings for the whole loop."""

    candidates_per_pair: int = Field(4, ge=2, le=MOST_CANDIDATES)
    """Images drawn for each pair that people are shown: of these the two that differ most."""
    prompts_per_round: int = Field(64, ge=1, le=MOST_PROMPTS)
    later_prompts_per_round: int | None = Field(None, ge=1, le=MOST_PROMPTS)
    """From the second self-annotated round on; None: as many as in the first."""
    num_candidates: int = Field(8, ge=2, le=MOST_CANDIDATES)
    held_out_every: int = Field(10, ge=2)
    """Every so many human pairs one is held out, for the judge to be measured on; of imported pairs those of
    one caption in so many. Of few labels each counts more in training: with one in five a loop fell short of
    the same steps on all of them."""
    min_human_pairs: int = Field(8, ge=2)
    """Fewer winner-loser pairs than this are too few to train."""
    draw_strength: DrawStrength = 1.0
    choose: Choose = "best_worst"
    self_pairs_per_prompt: int = Field(1, ge=1)
    """Best against worst of a prompt's candidates, second best against second worst, and so on inwards."""
    keep_self_pairs: float = Field(1.0, gt=0, le=1)
    """Share of the ranked self pairs, of those that `min_margin` leaves, that goes to review; the least
    certain are dropped."""
    min_margin: float = Field(0.0, ge=0)
    """A share of the median size of the judge's margins of the human pairs that it learned from: what is less
    clear to it is no self pair. Where a taste is fulfilled there are few."""
    monitor_prompts: int = Field(16, ge=0)
    reference: Literal["parent", "base"] = "parent"
    lora: Lora = Lora()
    loss: Loss = Loss()
    mixup: Mixup = Mixup()
    optimisation: Optimisation = Optimisation()
    scoring: Scoring = Scoring()
    sampling: Sampling = Sampling()
    monitoring: Monitoring = Monitoring()
    noise_seed: int = Field(0, gt=-(2**62), lt=2**62)

    @model_validator(mode="after")
    def _enough_candidates(self) -> LoopSettings:
        _require_candidates("self_pairs_per_prompt", self.self_pairs_per_prompt, self.num_candidates)
        return self

    @model_validator(mode="after")
    def _one_unit(self) -> LoopSettings:
        if self.min_margin > 0 and self.scoring.reference == "parent":
            raise ValueError(
                "Margins against the parent do not compare with human pairs', which are against base. "
                "Set min_margin to 0, or scoring.reference to base."
            )
        return self

    def changed(self, changes: Mapping[str, Any]) -> LoopSettings:
        """With some values replaced, nested ones too. pydantic's ValidationError for wrong ones, ValueError
        for those that no round would use.

        So many prompts a round holds for all rounds, unless later ones are given as well.
        """
        _require_used(changes)
        if "prompts_per_round" in changes:
            changes = {"later_prompts_per_round": None, **changes}
        return LoopSettings.model_validate(_merged(self.model_dump(mode="json"), changes))

    @classmethod
    def stored(cls, values: Any) -> LoopSettings:
        """As a project keeps them, without what another version kept there besides.

        Earlier versions had fewer bounds: a number that is too large is read as the largest there may be, so
        that no project is lost to it. pydantic's ValidationError for what else is wrong.
        """
        try:
            return cls.model_validate(values, extra="ignore")
        except ValidationError as error:
            return cls.model_validate(_bounded(values, error), extra="ignore")

    def prompts_in(self, number: int) -> int:
        """How many prompts the model judges its own images of for round `number`, 1 being the first."""
        later = self.later_prompts_per_round
        return self.prompts_per_round if number <= 1 or later is None else later

    @classmethod
    def for_model(cls, model: ModelRef) -> LoopSettings:
        """What was found to work on this model: the values in its folder's sail.json; the defaults for the
        rest, and drawn as its family is.

        The right beta depends on how a model's errors are scaled, and the rest on beta, so that settings
        belong to a model as a sampler's do. ValueError where the file is not one of settings.
        """
        defaults = cls(sampling=_sampling_of(model))
        file = Path(model.source) / OWN_SETTINGS
        # os.path, since pathlib raises on names that are too long.
        if not os.path.isfile(file):
            return defaults
        found = file.read_bytes()
        try:
            cls.model_validate_json(found)
            return defaults.changed(json.loads(found))
        except ValidationError as error:
            raise ValueError(f"{file} holds no settings of the loop: {first_fault(error)}") from error
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def paper(cls) -> LoopSettings:
        """What arXiv 2602.05380 states for SD1.5; what it leaves open is as in the defaults."""
        return cls(
            prompts_per_round=10_000,
            later_prompts_per_round=20_000,
            # Of 50,000 pairs 500 tell how good the judge is; the paper trains on all.
            held_out_every=100,
            loss=Loss(beta=5000),
            scoring=Scoring(average="mean"),
            sampling=Sampling(solver="ddpm", steps=50, guidance=7.5),
            mixup=Mixup(most_times=None),
            optimisation=Optimisation(batch_pairs=128, self_pair_draws="new"),
            monitoring=Monitoring(halvings=0),
        )
