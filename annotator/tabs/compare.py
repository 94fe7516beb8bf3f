"""Compare: two rounds, blindly. Markup only; static/compare.js fills it."""

from __future__ import annotations

from annotator.tabs import pair

TITLE = "Compare"
NAME = "compare"

_ANSWERS = tuple(answer for answer in pair.ANSWERS if answer[0] != "both_bad")

MARKUP = f"""
<div class="sail-row sail-match" data-testid="match" hidden>
  <label class="sail-row"><span>Compare</span><select data-testid="compare-one"></select></label>
  <label class="sail-row"><span>with</span><select data-testid="compare-two"></select></label>
  <span class="sail-dim" data-testid="compare-blind">You are not told which is which.</span>
</div>
{pair.desk(_ANSWERS, prefix="compare-", button="compare")}
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
