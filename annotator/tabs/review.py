"""Review: what the model taught itself, to approve, flip or drop. Markup only; static/review.js fills it."""

from __future__ import annotations

TITLE = "Review"
NAME = "review"

MARKUP = """
<div class="sail-stack">
  <section class="sail-message" data-testid="review-message" hidden></section>
  <section class="sail-card sail-mix sail-stack" data-testid="mix" hidden>
    <p data-testid="review-counts" aria-live="polite"></p>
    <div class="sail-row">
      <label class="sail-row sail-grow">
        <span>Mixup ratio</span>
        <input type="range" min="0" max="1" step="0.05" data-testid="mixup-ratio"
               aria-describedby="sail-mix-meaning">
        <output data-testid="mixup-value"></output>
      </label>
      <button type="button" class="sail-primary" data-testid="train-round"></button>
    </div>
    <p class="sail-dim" id="sail-mix-meaning" data-testid="mixup-meaning"></p>
  </section>
  <p class="sail-dim" data-testid="review-help" hidden>
    Least certain first. <kbd>J</kbd> <kbd>K</kbd> move, <kbd>A</kbd> approve, <kbd>F</kbd> flip,
    <kbd>X</kbd> drop; the same key again takes it back.
  </p>
  <div class="sail-grid" data-testid="review-grid"></div>
  <p class="sail-hidden" aria-live="polite" data-testid="review-announcement"></p>
</div>
"""
