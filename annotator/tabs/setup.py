"""Setup: projects, prompts and settings. Markup only; static/setup.js fills it."""

from __future__ import annotations

TITLE = "Setup"
NAME = "setup"

_SETTINGS = (
    ("optimisation.steps", "Training steps a round", "1", "1"),
    ("optimisation.batch_pairs", "Pairs in a step", "1", "1"),
    ("optimisation.learning_rate", "Learning rate", "0.000001", "any"),
    ("loss.beta", "Beta", "1", "any"),
    ("lora.rank", "LoRA rank", "1", "1"),
    ("candidates_per_pair", "Images drawn for a pair", "2", "1"),
    ("prompts_per_round", "Prompts a round", "1", "1"),
    ("num_candidates", "Candidates a prompt", "2", "1"),
    ("self_pairs_per_prompt", "Self pairs a prompt", "1", "1"),
    ("scoring.draws", "Draws to judge with", "2", "1"),
    ("sampling.steps", "Sampling steps", "1", "1"),
    ("sampling.guidance", "Guidance", "0", "any"),
    ("min_human_pairs", "Fewest pairs to train", "2", "1"),
    ("held_out_every", "One held out of every", "2", "1"),
    ("monitor_prompts", "Held-out prompts", "0", "1"),
    ("noise_seed", "Noise seed", "0", "1"),
)


def _number(name: str, title: str, least: str, step: str) -> str:
    return (
        f'<label><span>{title}</span><input type="number" name="{name}" min="{least}" step="{step}" '
        f'data-testid="setting-{name}"></label>'
    )


_NUMBERS = "".join(_number(*setting) for setting in _SETTINGS)

MARKUP = f"""
<div class="sail-columns">
  <div class="sail-stack">
    <section class="sail-card sail-stack">
      <h3>Projects</h3>
      <ul class="sail-list" data-testid="projects"></ul>
    </section>
    <section class="sail-card">
      <form class="sail-form" data-testid="create" novalidate>
        <h3>New project</h3>
        <label><span>Name</span>
          <input name="name" maxlength="60" autocomplete="off" data-testid="create-name"></label>
        <label><span>Model</span>
          <input name="model" value="starter" autocomplete="off" data-testid="create-model">
          <small>“starter” is the small model that ships. Or a folder with a model_index.json, a
            .safetensors checkpoint, or a hub id.</small></label>
        <label data-part="revision" hidden><span>Revision</span>
          <input name="revision" autocomplete="off" data-testid="create-revision">
          <small>The commit of the hub model, so that it never changes under you.</small></label>
        <label class="sail-check" data-part="download" hidden>
          <input type="checkbox" name="download">
          <span>Fetch it from the hub if it is not here. Nothing else asks another host.</span></label>
        <label><span>Prompts, one a line</span>
          <textarea name="prompts" data-testid="create-prompts"
            placeholder="a fox on a blue background"></textarea></label>
        <label><span class="sail-hidden">Text file of prompts</span>
          <input type="file" accept=".txt,text/plain" data-testid="create-file">
          <small>A text file fills the field above.</small></label>
        <label><span>Pairs to draw first</span>
          <input type="number" name="seed_pairs" min="2" max="5000" value="60"
            data-testid="create-pairs"></label>
        <p class="sail-error" role="alert" data-testid="create-error"></p>
        <div><button class="sail-primary" data-testid="create-submit">Create and open</button></div>
      </form>
    </section>
  </div>
  <div class="sail-stack">
    <section class="sail-card sail-stack">
      <h3 data-part="title"></h3>
      <div data-testid="project-facts"></div>
    </section>
    <section class="sail-card">
      <form class="sail-form" data-testid="settings" novalidate>
        <h3>Settings of the loop</h3>
        <p class="sail-dim">They hold for runs that are asked for from now on.</p>
        <div class="sail-numbers">{_NUMBERS}</div>
        <p class="sail-error" role="alert" data-testid="settings-error"></p>
        <div class="sail-row"><button class="sail-quiet" data-testid="settings-submit">Save settings</button>
          <span class="sail-dim" aria-live="polite" data-testid="settings-saved"></span></div>
      </form>
    </section>
    <section class="sail-card">
      <form class="sail-form" data-testid="prompts" novalidate>
        <h3>Prompts</h3>
        <label><span class="sail-hidden">Prompts, one a line</span>
          <textarea name="prompts"></textarea></label>
        <p class="sail-error" role="alert" data-testid="prompts-error"></p>
        <div class="sail-row"><button class="sail-quiet" data-testid="prompts-submit">Save prompts</button>
          <span class="sail-dim" aria-live="polite" data-testid="prompts-saved"></span></div>
      </form>
    </section>
  </div>
</div>
"""
