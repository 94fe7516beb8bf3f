"""What a run costs, in denoiser evaluations of one image. Knows requests; no tensor and no clock.

A backward pass counts as two forward ones, and what is not the denoiser (text, decoder, files) as nothing.
"""

from __future__ import annotations

from sail.config import ProposeRequest, Sampling, TrainRequest

FORWARD_AND_BACKWARD = 3


def evaluations_to_draw(sampling: Sampling) -> int:
    """Of one image: guidance evaluates each solver step with and without the prompt."""
    return sampling.steps * (2 if sampling.guidance > 1 else 1)


def evaluations_to_propose(request: ProposeRequest) -> int:
    """P N (2 S + 2 K): P prompts, N candidates, S guided solver steps, K draws as policy and as reference."""
    to_judge = 2 * request.scoring.draws if request.scoring else 0
    images = len(request.prompts) * request.num_candidates
    return images * (evaluations_to_draw(request.sampling) + to_judge)


def evaluations_to_train(request: TrainRequest, *, judged_pairs: int) -> int:
    """8 a pair and step, then judging `judged_pairs` human pairs, monitor images and previews.

    Both images of a pair go forward as the reference, and forward and backward as the policy.
    """
    config, monitoring = request.optimisation, request.monitoring
    learning = config.steps * config.batch_pairs * 2 * (1 + FORWARD_AND_BACKWARD)
    judging = judged_pairs * 2 * 2 * request.scoring.draws
    previews = (1 + -(-config.steps // request.checkpoint_every)) * min(
        monitoring.preview_prompts, len(monitoring.prompts)
    )
    monitored = 2 * len(monitoring.prompts) * monitoring.per_prompt
    return learning + judging + (monitored + previews) * evaluations_to_draw(request.sampling)
