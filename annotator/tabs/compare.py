"""Compare: two rounds, blindly. Markup only; static/compare.js fills it."""

from __future__ import annotations

from annotator.tabs import pair

TITLE = "Compare"
NAME = "compare"

_ANSWERS = (
    ("left", "1", "Left", "1 or left arrow"),
    ("right", "2", "Right", "2 or right arrow"),
    ("tie", "0", "Tie", "0 or down arrow"),
    ("skip", "S", "Skip", "S"),
    ("undo", "Z", "Undo", "Z"),
)

_SIDES = "".join(pair.side(side, prefix="compare-image") for side in ("left", "right"))

MARKUP = f"""
<div class="sail-row sail-match" data-testid="match" hidden>
  <label class="sail-row"><span>Compare</span><select data-testid="compare-one"></select></label>
  <label class="sail-row"><span>with</span><select data-testid="compare-two"></select></label>
  <span class="sail-dim" data-testid="compare-blind">You are not told which is which.</span>
</div>
<section class="sail-labelling" data-testid="comparing" hidden aria-label="Choose the better image">
  <p class="sail-ask">Which image is better for</p>
  <h2 class="sail-prompt" data-testid="compare-prompt" aria-live="polite"></h2>
  <div class="sail-pair" data-testid="compare-pair">{_SIDES}</div>
  <div class="sail-answers" role="group" aria-label="Answers">
    {pair.answers(_ANSWERS, prefix="compare")}
  </div>
  {pair.tools(prefix="compare")}
</section>
<p class="sail-said" aria-live="polite" data-testid="compare-announcement"></p>
<section class="sail-message" data-testid="compare-message" hidden></section>
<p class="sail-hidden" aria-live="polite" data-testid="compare-heading"></p>
<footer class="sail-progress" data-testid="compare-footer" hidden>
  <progress data-testid="compare-bar" max="1" value="0" aria-label="Comparisons answered"></progress>
  <p><span data-testid="compare-progress"></span>
     <span class="sail-badge" data-testid="compare-unsent" hidden></span>
     <button type="button" class="sail-quiet" data-testid="show-result"
       title="Looking early sways the answers after it">Show the result now</button></p>
</footer>
<dialog class="sail-help" data-testid="early-result" aria-label="The result so far">
  <h3>So far</h3>
  <div class="sail-stack" data-part="result"></div>
  <p class="sail-dim">Looking early sways the answers after it, so it is noted that you looked.</p>
  <form method="dialog"><button class="sail-primary">Go on comparing</button></form>
</dialog>
"""
