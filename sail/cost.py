"""What a run costs, in denoiser evaluations of one image. Knows requests; no tensor and no clock.

A backward pass counts as two forward ones, and what is not the denoiser (text, decoder, files) as nothing;
docs/cost.md has the sums.
"""

from __future__ import annotations

from sail import mixup
from sail.config import Optimisation, Sampling
from sail.requests import ProposeRequest, TrainRequest

FORWARD_AND_BACKWARD = 3
DRAW_BASE, LEARN, DRAW_POLICY = "draw held-out prompts (base)", "train", "draw held-out prompts (policy)"
JUDGE, JUDGE_OPEN = "judge human pairs", "judge open pairs"
"""Stages of a train run."""
MAX_LEARNED_JUDGED = 256
"""Pairs it learned from that the judge is asked about: enough for a share, however many labels there are."""


def ties_in_a_step(config: Optimisation) -> int:
    """Tied pairs that a step holds beside the pairs that it learns from: one for each four."""
    return max(1, config.batch_pairs // 4)


def evaluations_to_draw(sampling: Sampling, *, distilled: bool = False) -> int:
    """Of one image: guidance evaluates each solver step with and without the prompt, unless `distilled`.

    Whether guidance is distilled into a model its backbone knows; each result.json says it.
    """
    return sampling.steps * (2 if sampling.is_guided(distilled=distilled) else 1)


def evaluations_to_propose(request: ProposeRequest, *, distilled: bool = False) -> int:
    """P N (2 S + 2 K): P prompts, N candidates, S guided solver steps, K draws as policy and as reference."""
    to_judge = 2 * request.scoring.draws if request.scoring else 0
    images = len(request.prompts) * request.num_candidates
    return images * (evaluations_to_draw(request.sampling, distilled=distilled) + to_judge)


def evaluations_to_train(
    request: TrainRequest,
    *,
    judged_pairs: int,
    human_pairs: int,
    self_pairs: int,
    tie_pairs: int = 0,
    distilled: bool = False,
    times_drawn: int = 1,
) -> int:
    """Learning, then judging `judged_pairs` human pairs, monitor images and previews.

    `times_drawn`: how often the policy's monitor images are; more than once where the gate refuses them.
    """
    stages = stages_of_training(
        request,
        judged_pairs=judged_pairs,
        human_pairs=human_pairs,
        self_pairs=self_pairs,
        tie_pairs=tie_pairs,
        distilled=distilled,
    )
    return sum(stages.values()) + (times_drawn - 1) * stages[DRAW_POLICY]


def stages_of_training(
    request: TrainRequest,
    *,
    judged_pairs: int,
    human_pairs: int,
    self_pairs: int,
    tie_pairs: int,
    distilled: bool,
    open_pairs: int = 0,
) -> dict[str, int]:
    """Evaluations of a train run, stage by stage in their order."""
    config, monitoring = request.optimisation, request.monitoring
    an_image = evaluations_to_draw(request.sampling, distilled=distilled)
    a_pair = 2 * 2 * request.scoring.draws
    previews = (1 + -(-config.steps // request.checkpoint_every)) * min(
        monitoring.preview_prompts, len(monitoring.prompts)
    )
    monitored = len(monitoring.prompts) * monitoring.per_prompt * an_image
    learning = evaluations_to_learn(
        request, human_pairs=human_pairs, self_pairs=self_pairs, tie_pairs=tie_pairs, distilled=distilled
    )
    return {
        DRAW_BASE: monitored,
        LEARN: learning + previews * an_image,
        DRAW_POLICY: monitored,
        JUDGE: judged_pairs * a_pair,
        JUDGE_OPEN: open_pairs * a_pair,
    }


def evaluations_to_learn(
    request: TrainRequest, *, human_pairs: int, self_pairs: int, tie_pairs: int = 0, distilled: bool = False
) -> int:
    """8 a pair and step: both images go forward as the reference, and forward and backward as the policy.

    Of self pairs that are learned from on the judge's draws the reference sees those without their prompt.
    Where ties are held the adapter that the round began with sees all of those that a step takes.
    """
    config = request.optimisation
    held = config.steps * ties_in_a_step(config) if request.loss.hold_ties > 0 and tie_pairs else 0
    learned = config.steps * config.batch_pairs
    seen = reference_pairs(request, human_pairs=human_pairs, self_pairs=self_pairs, distilled=distilled)
    return 2 * (seen + FORWARD_AND_BACKWARD * learned) + 2 * (1 + FORWARD_AND_BACKWARD) * held


def reference_pairs(
    request: TrainRequest, *, human_pairs: int, self_pairs: int, distilled: bool = False
) -> int:
    """Pairs that the reference sees in all steps: all that are drawn, but those whose errors are known."""
    config = request.optimisation
    # Mirroring needs predictions, of which the judge keeps the errors.
    if not request.reuses_judged_draws or self_pairs == 0 or request.loss.objective == "mirrored":
        return config.steps * config.batch_pairs
    plan = mixup.plan(
        request.mixup.self_fraction,
        human_pairs=human_pairs,
        self_pairs=self_pairs,
        steps=config.steps,
        batch_pairs=config.batch_pairs,
    )
    emptied = config.empty_prompt_share if request.sampling.is_guided(distilled=distilled) else 0.0
    return plan.human_draws + round(plan.self_draws * emptied)
