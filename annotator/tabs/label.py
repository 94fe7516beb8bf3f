"""Label: two images, one question. Markup only; annotator/static/label.js does the rest."""

from __future__ import annotations

TITLE = "Label"
NAME = "label"

_ANSWERS = (
    ("left", "1", "Left", "1 or left arrow"),
    ("right", "2", "Right", "2 or right arrow"),
    ("tie", "0", "Tie", "0 or down arrow"),
    ("both_bad", "9", "Both bad", "9"),
    ("skip", "S", "Skip", "S"),
    ("undo", "Z", "Undo", "Z"),
    ("help", "?", "Help", "?"),
)


def _button(value: str, key: str, title: str, keys: str) -> str:
    return (
        f'<button type="button" class="sail-answer" data-answer="{value}" data-testid="answer-{value}" '
        f'title="Key: {keys}"><kbd aria-hidden="true">{key}</kbd> {title}</button>'
    )


def _side(side: str) -> str:
    return (
        f'<button type="button" class="sail-image" data-answer="{side}" data-testid="image-{side}" '
        f'aria-label="{side.title()} image: choose it"></button>'
    )


_HELP = "".join(f"<tr><td><kbd>{keys}</kbd></td><td>{title}</td></tr>" for _, _, title, keys in _ANSWERS)

MARKUP = f"""
<section class="sail-labelling" hidden aria-label="Choose the better image">
  <p class="sail-ask">Which image is better for</p>
  <h2 class="sail-prompt" data-testid="prompt"></h2>
  <div class="sail-pair" data-testid="pair">{_side("left")}{_side("right")}</div>
  <div class="sail-answers" role="group" aria-label="Answers">
    {"".join(_button(*answer) for answer in _ANSWERS)}
  </div>
  <p class="sail-said" aria-live="polite" data-testid="announcement"></p>
</section>
<section class="sail-message" data-testid="label-message" hidden></section>
<footer class="sail-progress">
  <progress data-testid="label-bar" max="1" value="0" aria-label="Pairs labelled"></progress>
  <p><span data-testid="label-progress"></span>
     <span class="sail-badge" data-testid="unsent" hidden></span>
     <button type="button" class="sail-quiet" data-testid="train-early" hidden></button></p>
</footer>
<dialog class="sail-help" data-testid="help">
  <h3>Keys</h3>
  <table>{_HELP}</table>
  <p>Tie: both are equally good. Both bad: neither should be learned from. Skip: you would rather not say.
    Only pairs with a winner teach the model. A click on an image chooses it. Labels are saved as you go.
    What could not be sent waits in this browser.</p>
  <form method="dialog"><button class="sail-primary">Close</button></form>
</dialog>
"""
