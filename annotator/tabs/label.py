"""Label: two images, one question. Markup only; static/label.js and its neighbours do the rest."""

from __future__ import annotations

from annotator.tabs import pair

TITLE = "Label"
NAME = "label"

_MORE_TOOLS = (
    ("reasons", "T", "Reasons", "T"),
    ("help", "?", "Help", "?"),
)
_KEYS = (
    ("1 or ←", "The left image is better"),
    ("2 or →", "The right image is better"),
    ("0 or ↓", "Tie: both are equally good"),
    ("9", "Both bad: neither should be learned from"),
    ("S", "Skip: you would rather not say"),
    ("Z", "Undo, as often as you like, also after a reload"),
    ("Space", "Swap, while it is held: the two change places, so that a difference shows"),
    ("+ −", "Zoom both; or the wheel, or two fingers. Drag to move"),
    ("Esc", "Whole image again; or a double click"),
    ("E", "Larger: both as large as the window allows, from pair to pair"),
    ("T", "Reasons: why you gave the last answer"),
    ("P", "Practise on three pairs that are not kept"),
    ("?", "This help"),
)
_REASONS = (
    ("colour", "Colour"),
    ("composition", "Composition"),
    ("details", "Details"),
    ("style", "Style"),
    ("prompt", "Prompt not followed"),
    ("broken", "Something is broken"),
)
_ORDERS = (
    ("random", "at random"),
    ("diverse", "diverse prompts"),
    ("uncertain", "model unsure"),
    ("disagreement", "disputed"),
)


_HELP = "".join(f"<tr><td><kbd>{keys}</kbd></td><td>{what}</td></tr>" for keys, what in _KEYS)
_CHIPS = "".join(
    f'<button type="button" class="sail-answer" aria-pressed="false" data-reason="{name}" '
    f'data-key="{number}" data-testid="reason-{name}"><kbd aria-hidden="true">{number}</kbd> {title}</button>'
    for number, (name, title) in enumerate(_REASONS, start=1)
)
_ORDER = "".join(f'<option value="{value}">{title}</option>' for value, title in _ORDERS)
_PRACTICE_SIDES = "".join(
    pair.side(side, attribute="practice", prefix="practice", part=side) for side in ("left", "right")
)
_PRACTICE_ANSWERS = "".join(
    f'<button type="button" class="sail-answer" data-practice="{value}">'
    f'<kbd aria-hidden="true">{key}</kbd> {title}</button>'
    for value, key, title, _ in pair.ANSWERS[:5]
)

MARKUP = f"""
{pair.desk(pair.ANSWERS, _MORE_TOOLS, button="answer")}
<section class="sail-message" data-testid="label-message" hidden></section>
<p class="sail-hidden" aria-live="polite" data-testid="label-heading"></p>
<footer class="sail-progress">
  <progress data-testid="label-bar" max="1" value="0" aria-label="Pairs answered"></progress>
  <p><span data-testid="label-progress"></span>
     <span class="sail-badge" data-testid="unsent" hidden></span>
     <label class="sail-order"><span>Order</span>
       <select data-testid="order" aria-label="Order in which pairs come">{_ORDER}</select></label>
     <button type="button" class="sail-quiet" data-testid="train-early" hidden></button></p>
  <p class="sail-order-note" data-testid="order-note"></p>
</footer>
<aside class="sail-note" data-testid="note-practice" hidden>
  <span>New here? Three practice pairs show how it works. Nothing of them is kept.</span>
  <button type="button" class="sail-quiet" data-answer="practise" data-testid="practise"
    title="Key: P"><kbd aria-hidden="true">P</kbd> Practise</button>
  <button type="button" class="sail-quiet" data-dismiss="practice" data-testid="no-practice">Not now</button>
</aside>
<aside class="sail-note" data-testid="note-name" hidden>
  <form novalidate>
    <label><span>What shall we call you? Others here see it beside what you decide.</span>
      <input name="name" maxlength="40" autocomplete="nickname" data-testid="note-name-input"></label>
    <button class="sail-quiet" data-testid="note-name-save">Save</button>
    <button type="button" class="sail-quiet" data-dismiss="name" data-testid="no-name">Not now</button>
  </form>
</aside>
<dialog class="sail-help" data-testid="help" aria-label="Help">
  <h3 tabindex="-1" autofocus>Help</h3>
  <p>Pairs with a winner teach the model what you like. A click or a tap on an image chooses it. While Swap
    is held the two change places, so that a difference shows; two fingers, or the wheel, zoom both.</p>
  <table>{_HELP}</table>
  {pair.SINGLE_KEYS}
  <p>A new pair takes no answer for a quarter of a second, so that a double press counts once.
    Answers are saved as you go; what could not be sent waits in this browser.</p>
  <form method="dialog"><button class="sail-primary">Close</button></form>
</dialog>
<dialog class="sail-help sail-reasons" data-testid="reasons" aria-label="Reasons">
  <form method="dialog">
    <h3>Why “<span data-part="answer"></span>”?</h3>
    <div class="sail-two" data-part="pair"></div>
    <div class="sail-answers" role="group" aria-label="Reasons">{_CHIPS}</div>
    <label><span class="sail-hidden">In your own words</span>
      <input data-part="text" maxlength="500" placeholder="In your own words" autocomplete="off"
        data-testid="reason-text"></label>
    <div class="sail-row"><button class="sail-primary" data-part="save" data-testid="reasons-save">
      <kbd aria-hidden="true">Enter</kbd> Save</button>
      <button type="button" class="sail-quiet" data-part="cancel" data-testid="reasons-cancel">
      <kbd aria-hidden="true">Esc</kbd> Cancel</button></div>
  </form>
</dialog>
<dialog class="sail-help sail-practice" data-testid="practice" aria-labelledby="sail-practice-title">
  <div data-part="box" tabindex="-1">
    <h3 id="sail-practice-title" data-part="title"></h3>
    <p data-part="says" data-testid="practice-says" aria-live="polite"></p>
    <div class="sail-pair" data-part="pair">{_PRACTICE_SIDES}</div>
    <div class="sail-answers" data-part="answers">{_PRACTICE_ANSWERS}
      <button type="button" class="sail-answer" data-part="flip">
        <kbd aria-hidden="true">Space</kbd> Swap</button>
    </div>
    <p class="sail-said" aria-live="polite" data-part="said" data-testid="practice-said"></p>
    <button type="button" class="sail-quiet" data-part="close" data-testid="practice-close"></button>
  </div>
</dialog>
"""
