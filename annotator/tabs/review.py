"""Review: what the model taught itself, to approve, flip or drop. Markup only; static/review.js fills it."""

from __future__ import annotations

TITLE = "Review"
NAME = "review"

MARKUP = """
<div class="sail-stack sail-reviewing">
  <section class="sail-message" data-testid="review-message" hidden></section>
  <div class="sail-stack" data-testid="reviewing" hidden>
    <section class="sail-card sail-mix" data-testid="mix">
      <div class="sail-row">
        <p class="sail-grow" data-testid="review-counts" aria-live="polite"></p>
        <span class="sail-badge" data-testid="review-unsent" hidden></span>
        <button type="button" class="sail-quiet" data-testid="review-undo" title="Key: Z">Undo</button>
        <button type="button" class="sail-primary" data-testid="train-round"></button>
      </div>
    </section>
    <div class="sail-columns">
    <section class="sail-card" data-testid="audit">
      <h3 data-testid="audit-title"></h3>
      <p class="sail-dim" data-testid="audit-text"></p>
      <button type="button" class="sail-quiet" data-testid="lower-share" hidden>
        Lower the share to 25 %</button>
      <div class="sail-row sail-gate" data-testid="gate" hidden>
        <span class="sail-grow" data-testid="gate-text"></span>
        <button type="button" class="sail-quiet" data-testid="train-anyway">Train without the audit</button>
        <button type="button" class="sail-quiet" data-testid="gate-back" hidden>Back</button>
      </div>
      <div class="sail-bulk" data-testid="bulk" hidden>
        <div class="sail-row">
          <button type="button" class="sail-quiet" data-testid="bulk-open" aria-expanded="false"></button>
          <label class="sail-slider sail-grow">
            <span>How clear</span>
            <input type="range" min="0" step="1" data-testid="bulk-threshold">
            <output data-testid="bulk-value"></output>
          </label>
        </div>
        <p class="sail-dim" data-testid="bulk-text"></p>
        <div class="sail-stack" data-testid="bulk-preview" hidden>
          <p class="sail-dim">The framed side wins. Click on a pair that looks wrong to go there.</p>
          <div class="sail-thumbs" data-testid="bulk-thumbs"></div>
          <div class="sail-row">
            <button type="button" class="sail-primary" data-testid="bulk-approve"></button>
            <button type="button" class="sail-quiet" data-testid="bulk-cancel">Cancel</button>
          </div>
        </div>
      </div>
      <div class="sail-row" data-testid="bulk-last" hidden>
        <span class="sail-grow" data-testid="bulk-said"></span>
        <button type="button" class="sail-quiet" data-testid="bulk-undo">Take it back</button>
      </div>
    </section>
    <section class="sail-card sail-mixing" data-testid="mixing">
      <details data-testid="mixup-fold" open>
        <summary>Share of the model's own pairs (mixup ratio):
          <output data-testid="mixup-value"></output></summary>
        <div class="sail-slider"><input type="range" min="0" max="1" step="0.01" data-testid="mixup-ratio"
          aria-label="Share of the model's own pairs" aria-describedby="sail-mix-meaning"></div>
        <p class="sail-dim" id="sail-mix-meaning" data-testid="mixup-meaning"></p>
      </details>
      <p class="sail-warning" data-testid="mixup-warning" role="status"></p>
    </section>
    </div>
    <p class="sail-dim sail-keys" data-testid="audit-help">
      <kbd>1</kbd> left is better, <kbd>2</kbd> right is better, <kbd>X</kbd> neither; on a pair that
      is decided its key takes it back. <kbd>J</kbd> <kbd>K</kbd> move, <kbd>E</kbd> enlarges,
      <kbd>Z</kbd> undo.
    </p>
    <p class="sail-dim" data-testid="review-help">
      A pair that nobody reviews is learned as the model judged it; <kbd>A</kbd> approve says that you
      looked, <kbd>F</kbd> flip learns it the other way round, <kbd>X</kbd> drop leaves it out; the same
      again takes it back. <span class="sail-keys"><kbd>J</kbd> <kbd>K</kbd> move, with <kbd>Shift</kbd> they
      select a range, <kbd>E</kbd> enlarges, <kbd>Z</kbd> undo.</span>
    </p>
    <p class="sail-warning" data-testid="review-late" role="status"></p>
    <div class="sail-grid" data-testid="review-grid"></div>
  </div>
  <p class="sail-hidden" aria-live="polite" data-testid="review-announcement"></p>
</div>
"""
