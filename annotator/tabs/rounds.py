"""Rounds: where the loop stands, what runs, what was trained. Markup only; static/rounds.js fills it."""

from __future__ import annotations

TITLE = "Rounds"
NAME = "rounds"
STEPS = (
    ("seed", "Label", "people choose"),
    ("propose", "Propose", "images are drawn, the model judges"),
    ("review", "Review", "people correct"),
    ("train", "Train", "the model learns"),
    ("gate", "Check", "measured, accepted or not"),
)

_STEPS = "".join(
    f'<li data-step="{name}" title="{what}"><span>{title}</span></li>' for name, title, what in STEPS
)

MARKUP = f"""
<div class="sail-stack">
  <ol class="sail-steps" data-testid="stepper" aria-label="Steps of the loop">{_STEPS}</ol>
  <section class="sail-card sail-next" data-testid="next" aria-live="polite"></section>
  <section class="sail-card" data-testid="curves" hidden>
    <div class="sail-row">
      <h3 class="sail-grow" data-part="title"></h3><span class="sail-dim" data-part="note"></span>
    </div>
    <p data-part="words" data-testid="learning"></p>
    <div data-part="samples"></div>
    <div class="sail-charts" data-part="charts"></div>
  </section>
  <section class="sail-card" data-testid="doubted" hidden>
    <div class="sail-row"><h3 data-part="title"></h3>
      <span class="sail-badge" data-part="unsent" hidden></span></div>
    <p class="sail-dim">The model judges these the other way; your answer is not shown, so that you look
      afresh. A slip of the hand? Choose again, and what you say now counts from the next round on.</p>
    <div class="sail-grid" data-part="pairs"></div>
  </section>
  <section class="sail-card sail-stack" aria-labelledby="sail-rounds-title">
    <div class="sail-row"><h3 id="sail-rounds-title">Rounds</h3>
      <span class="sail-dim" role="status" data-testid="rounds-said"></span></div>
    <div data-testid="rounds"></div>
  </section>
  <section class="sail-card"><h3>Runs</h3><div data-testid="runs"></div></section>
</div>
"""
