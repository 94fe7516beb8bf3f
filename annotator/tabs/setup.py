"""Setup: projects, prompts and settings. Markup only; static/setup.js fills it."""

from __future__ import annotations

from typing import NamedTuple

from annotator.projects import REMOVED

TITLE = "Setup"
NAME = "setup"


class _Setting(NamedTuple):
    name: str
    title: str
    least: str
    step: str = "1"
    hint: str = ""
    kind: str = "number"


_FEW = (
    _Setting(
        "optimisation.steps", "Training steps per round", "1", "1", "More steps learn more and take longer."
    ),
    _Setting(
        "prompts_per_round", "Prompts per round", "1", "1", "Of these the model draws and judges images."
    ),
    _Setting("candidates_per_pair", "Images drawn for a pair", "2", "1", "You see the two that differ most."),
)
_ADVANCED = (
    (
        "Training",
        (
            _Setting("optimisation.batch_pairs", "Pairs per step", "1"),
            _Setting("optimisation.learning_rate", "Learning rate", "0.000001", "any"),
            _Setting("loss.beta", "Beta", "1", "any", "Higher changes less in a round."),
            _Setting(
                "loss.hold_ties",
                "Hold ties",
                "0",
                "any",
                "Higher: training changes less where you answered Tie. 0: ties are not used.",
            ),
            _Setting("lora.rank", "LoRA rank", "1"),
            _Setting("min_human_pairs", "Minimum pairs to train", "2"),
        ),
    ),
    (
        "Drawing",
        (
            _Setting("sampling.steps", "Sampling steps", "1"),
            _Setting("sampling.guidance", "Guidance", "0", "any"),
            _Setting("noise_seed", "Noise seed", "0"),
            _Setting(
                "sampling.size",
                "Image size",
                "",
                "",
                "Height x width. It can be changed until the first image is drawn.",
                kind="size",
            ),
        ),
    ),
    (
        "What the model judges itself",
        (
            _Setting("num_candidates", "Candidates per prompt", "2"),
            _Setting("self_pairs_per_prompt", "Self pairs per prompt", "1"),
            _Setting(
                "min_margin",
                "Minimum margin",
                "0",
                "0.05",
                "How clear a self pair must be to the model: 0.25 is a quarter as clear as pairs you chose "
                "between, 0 keeps all. From the next proposal on.",
            ),
            _Setting("scoring.draws", "Noise samples per judgement", "2"),
        ),
    ),
    (
        "Measuring",
        (
            _Setting(
                "held_out_every",
                "Keep aside 1 pair in",
                "2",
                "1",
                "To check the model: it never learns from them.",
            ),
            _Setting(
                "monitor_prompts", "Prompts kept aside", "0", "1", "To check the model, and to compare on."
            ),
            _Setting(
                "monitoring.min_judge_accuracy",
                "Minimum judge accuracy",
                "0",
                "0.05",
                "A round is refused if the model is clearly worse than this on pairs kept aside.",
            ),
            _Setting(
                "monitoring.min_diversity_ratio",
                "Minimum diversity",
                "0",
                "0.05",
                "Times that of the base model's images. What has less is not kept.",
            ),
            _Setting(
                "monitoring.max_saturation_ratio",
                "Maximum saturation",
                "1",
                "0.1",
                "2 allows from half to twice that of the base model's images. Raise it if you like greys.",
            ),
        ),
    ),
    (
        "Where runs are computed",
        (
            _Setting("launcher.processes", "Processes on this machine", "1", "1", "One for each GPU."),
            _Setting(
                "launcher.command",
                "Launch command",
                "",
                "",
                "Instead, such as: sbatch --wait FILE {command}. docs/several_gpus.md has more.",
                kind="text",
            ),
        ),
    ),
)


_OWN = "the model's own"
_SIZE = f'type="text" data-kind="size" data-none="{_OWN}" placeholder="height x width"'
_KINDS = {
    "number": 'type="number" min="{setting.least}" step="{setting.step}"',
    "text": 'type="text"',
    "size": _SIZE,
}


def _field(setting: _Setting) -> str:
    hint = f"<small>{setting.hint}</small>" if setting.hint else ""
    return (
        f"<label><span>{setting.title}</span><input {_KINDS[setting.kind].format(setting=setting)} "
        f'name="{setting.name}" autocomplete="off" data-testid="setting-{setting.name}">'
        f'<small data-default="{setting.name}" hidden></small>{hint}</label>'
    )


def _fields(settings: tuple[_Setting, ...]) -> str:
    return f'<div class="sail-numbers">{"".join(map(_field, settings))}</div>'


_GROUPS = "".join(
    f"<fieldset><legend>{title}</legend>{_fields(settings)}</fieldset>" for title, settings in _ADVANCED
)


STARTER_KNOWS = (
    "The starter knows the words of its own prompts alone: 40 subjects, 2 sizes, 3 styles, 8 backgrounds. "
    "Setup of the demo project shows them."
)


def _about_prompts(form: str) -> str:
    """What is said under a form's prompts: words that its model does not know, and what went out of it."""
    return f"""
        <p class="sail-warn" role="status" data-testid="{form}-strange" hidden>{STARTER_KNOWS}
          Not among them: <span data-part="strange"></span></p>
        <div class="sail-row" role="status" data-part="former" data-testid="{form}-former" hidden></div>"""


_STARTER = "“starter” is the small model that comes along, to try the app: 40 subjects, 64 x 64 pixels. Or"


def _model_fields(form: str, *, value: str = "", hint: str = "") -> str:
    return f"""
        <label><span>Model</span>
          <input name="model.source" value="{value}" autocomplete="off" data-testid="{form}-model">
          <small>{hint} a folder with a model_index.json, a .safetensors checkpoint, or a
            Hugging Face name (owner/model).</small></label>
        <label data-part="revision" hidden><span>Revision</span>
          <input name="model.revision" autocomplete="off" data-testid="{form}-revision">
          <small>The commit of the model, so that it never changes under you; of a checkpoint, that of the
            model whose configuration it takes.</small></label>
        <label class="sail-check" data-part="download" hidden>
          <input type="checkbox" name="download">
          <span>Download it from Hugging Face if it is not here yet; of a checkpoint, its configuration,
            unless a folder of its name lies beside it. Nothing else is downloaded.</span></label>"""


MARKUP = f"""
<div class="sail-columns">
  <div class="sail-stack">
    <section class="sail-card sail-stack" data-part="facts">
      <h3 data-part="title"></h3>
      <div data-testid="project-facts"></div>
      <details data-testid="moved-fold">
        <summary>Where the model is</summary>
        <form class="sail-form" data-testid="moved" novalidate>
          <p class="sail-dim">For the same model at another place. Labels and adapters belong to it: another
            model needs a project of its own.</p>
          {_model_fields("moved", hint="Where it is now:")}
          <p class="sail-error" role="alert" data-testid="moved-error"></p>
          <div class="sail-row">
            <button class="sail-quiet" data-testid="moved-submit">Save where it is</button>
            <span class="sail-dim" aria-live="polite" data-testid="moved-saved"></span></div>
        </form>
      </details>
      <details data-testid="renamed-fold">
        <summary>Rename or remove</summary>
        <form class="sail-form" data-testid="renamed" novalidate>
          <label><span>Name</span>
            <input name="name" maxlength="60" autocomplete="off" data-testid="renamed-name"></label>
          <p class="sail-dim">Removing deletes nothing: the project goes into the folder {REMOVED} beside the
            others, and can be put back under Projects. To free its disk space, delete it there.</p>
          <p class="sail-error" role="alert" data-testid="renamed-error"></p>
          <div class="sail-row">
            <button class="sail-quiet" data-testid="renamed-submit">Rename</button>
            <button type="button" class="sail-quiet" data-testid="remove">Remove this project</button></div>
        </form>
      </details>
    </section>
    <section class="sail-card">
      <form class="sail-form" data-testid="settings" novalidate>
        <h3>Settings of the loop</h3>
        <p class="sail-dim">The model's own, or the app's defaults where it brings none. Changes
          apply to new runs; a waiting or resumed run keeps what it was asked with.</p>
        {_fields(_FEW)}
        <details data-testid="settings-advanced">
          <summary data-part="advanced">Advanced</summary>
          {_GROUPS}
        </details>
        <p class="sail-error" role="alert" data-testid="settings-error"></p>
        <div class="sail-row"><button class="sail-quiet" data-testid="settings-submit">Save settings</button>
          <span class="sail-dim" aria-live="polite" data-testid="settings-saved"></span></div>
      </form>
    </section>
    <section class="sail-card">
      <form class="sail-form" data-testid="prompts" novalidate>
        <h3>Prompts</h3>
        <label><span class="sail-hidden">Prompts, one per line</span>
          <textarea name="prompts"></textarea>
          <small data-part="count"></small></label>
        {_about_prompts("prompts")}
        <p class="sail-error" role="alert" data-testid="prompts-error"></p>
        <div class="sail-row"><button class="sail-quiet" data-testid="prompts-submit">Save prompts</button>
          <span class="sail-dim" aria-live="polite" data-testid="prompts-saved"></span></div>
      </form>
    </section>
  </div>
  <div class="sail-stack">
    <section class="sail-card sail-stack">
      <h3>Projects</h3>
      <ul class="sail-list sail-projects" data-testid="projects"></ul>
      <details data-testid="removed-fold" hidden>
        <summary>Removed projects</summary>
        <ul class="sail-removed" data-testid="removed"></ul>
        <p class="sail-error" role="alert" data-testid="removed-error"></p>
      </details>
    </section>
    <section class="sail-card">
      <form class="sail-form" data-testid="create" novalidate>
        <h3>New project</h3>
        <label><span>Name</span>
          <input name="name" maxlength="60" autocomplete="off" data-testid="create-name">
          <small role="status" data-testid="create-name-hint"></small></label>
        {_model_fields("create", value="starter", hint=_STARTER)}
        <label><span>Prompts, one per line</span>
          <textarea name="prompts" data-testid="create-prompts"
            placeholder="a fox on a blue background"></textarea>
          <small data-part="count" data-testid="create-count"></small></label>
        {_about_prompts("create")}
        <div class="sail-row">
          <button type="button" class="sail-quiet" data-testid="create-copy" hidden></button>
          <label class="sail-quiet sail-file"><span>From a text file</span>
            <input type="file" accept=".txt,text/plain" data-testid="create-file"></label>
        </div>
        <details data-testid="create-advanced">
          <summary>Advanced</summary>
          <label><span>Pairs to draw first</span>
            <input type="number" name="seed_pairs" min="2" max="5000" value="60"
              data-testid="create-pairs"></label>
          <div class="sail-numbers">
            <label><span>Sampling steps</span><input type="number" min="1" name="sampling.steps"
              autocomplete="off" data-testid="create-steps"></label>
            <label><span>Guidance</span><input type="number" min="0" step="any" name="sampling.guidance"
              autocomplete="off" data-testid="create-guidance"></label>
          </div>
          <small class="sail-dim">Empty: the model's own, or what is usual for its family where that can
            be seen; else 20 and 5.</small>
          <label><span>Image size</span>
            <input {_SIZE} name="sampling.size" autocomplete="off" data-testid="create-size">
            <small>Height x width in pixels; empty: the model's own. It cannot be changed once
              the first image is drawn.</small></label>
        </details>
        <p class="sail-error" role="alert" data-testid="create-error"></p>
        <div><button class="sail-primary" data-testid="create-submit">Create and open</button></div>
      </form>
    </section>
  </div>
</div>
"""
