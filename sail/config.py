"""How training, drawing and judging are set, part by part. Knows no tensor; wrong values never get in.

The parts are in what a run is asked to do (`requests`) and in the settings of a whole loop (`settings`).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

MAX_PROMPT_CHARS = 2000


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


def require_candidates(name: str, pairs: int, candidates: int) -> None:
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
Pixels = Annotated[int, Field(ge=8, le=MAX_SIDE)]
DrawStrength = Annotated[float, Field(ge=0, le=1)]
"""Share of the policy's adapter that candidates are drawn with: 1 the policy (the paper), 0 the base model.
A policy prefers images that carry its own marks, whatever people like; a weaker one's carry fewer, and are
still better liked than base's."""
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)]


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
