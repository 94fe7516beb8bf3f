"""Try: a prompt with base and any rounds, side by side. Markup only; static/try.js fills it."""

from __future__ import annotations

from annotator.tabs.setup import STARTER_KNOWS

TITLE = "Try"
NAME = "try"

MARKUP = f"""
<div class="sail-stack">
  <section class="sail-card">
    <form class="sail-form" data-testid="try-form" novalidate>
      <label><span>Prompt</span>
        <textarea name="prompt" rows="2" class="sail-try-prompt" data-testid="try-prompt"
          placeholder="a fox on a blue background"></textarea>
        <small data-testid="try-starter" hidden>{STARTER_KNOWS}</small>
        <small class="sail-warn" role="status" data-testid="try-strange" hidden></small></label>
      <fieldset class="sail-choices" data-testid="try-rounds"><legend>Draw with</legend></fieldset>
      <div class="sail-try-numbers">
        <label class="sail-strength"><span>Strength of the rounds
            <b aria-hidden="true" data-testid="try-strength-value">1.00</b></span>
          <input type="range" name="strength" min="0" max="1.5" step="0.05" value="1"
            data-testid="try-strength">
          <small>0 is base, 1 is the round itself.</small></label>
        <label><span>Images of each</span>
          <select name="count" data-testid="try-count">
            <option>1</option><option selected>2</option><option>3</option><option>4</option>
          </select></label>
        <label><span>Noise seed</span>
          <span class="sail-seed"><input type="number" name="noise_seed" min="0" max="999999" value="0"
            data-testid="try-seed">
          <button type="button" class="sail-quiet" data-testid="try-other-seed"
            title="Other images of the same prompt">Another</button></span></label>
      </div>
      <p class="sail-error" role="alert" data-testid="try-error"></p>
      <div class="sail-row">
        <button class="sail-primary" data-testid="try-submit">Draw</button>
        <span class="sail-dim" data-testid="try-state" aria-live="polite"></span>
      </div>
    </form>
  </section>
  <div class="sail-stack" data-testid="tries"></div>
</div>
"""
