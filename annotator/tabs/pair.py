"""Two images, the buttons under them and their keys, in Label and Compare alike. Markup only."""

from __future__ import annotations

from collections.abc import Iterable

Button = tuple[str, str, str, str]
"""Answer or tool, key, title, keys in words."""
ANSWERS: tuple[Button, ...] = (
    ("left", "1", "Left", "1 or left arrow"),
    ("right", "2", "Right", "2 or right arrow"),
    ("tie", "0", "Tie", "0 or down arrow"),
    ("both_bad", "9", "Both bad", "9"),
    ("skip", "S", "Skip", "S"),
    ("undo", "Z", "Undo", "Z"),
)
_LOOKING = (
    ("flip", "Space", "Swap", "hold Space"),
    ("zoom", "+", "Zoom", "+"),
    ("whole", "Esc", "Whole image", "Esc"),
    ("larger", "E", "Larger", "E"),
)

SINGLE_KEYS = """
<label class="sail-check"><input type="checkbox" data-keys checked>
  <span>Single letters, digits and signs are shortcuts, such as S and 1. Arrows, Space, Esc and
    Ctrl+Z always work.</span></label>
"""
"""WCAG 2.1.4: static/keys.js keeps what is chosen."""


def _buttons(of: Iterable[Button], *, prefix: str, attribute: str = "answer") -> str:
    """`prefix` begins what tests know them by."""
    return "".join(
        f'<button type="button" class="sail-answer" data-{attribute}="{value}" '
        f'data-testid="{prefix}-{value}" title="Key: {keys}">'
        f'<kbd aria-hidden="true">{key}</kbd> {title}</button>'
        for value, key, title, keys in of
    )


def side(side: str, *, prefix: str, attribute: str = "answer", part: str = "") -> str:
    """The frame of one image, which a click chooses."""
    own = f'data-part="{part}" ' if part else ""
    return (
        f'<button type="button" class="sail-image" data-{attribute}="{side}" {own}'
        f'data-testid="{prefix}-{side}" aria-label="{side.title()} image: choose it"></button>'
    )


def desk(answers: Iterable[Button], more: Iterable[Button] = (), *, prefix: str = "", button: str) -> str:
    """Where a pair is answered (static/desk.js), with `more` buttons beside the tools of looking closer.

    `prefix` begins what its parts are known by, `button` what its buttons are.
    """
    sides = "".join(side(name, prefix=f"{prefix}image") for name in ("left", "right"))
    # Not answers: flip is held, not clicked.
    looking = _buttons(_LOOKING, prefix=button, attribute="tool")
    return f"""
<section class="sail-labelling" data-testid="{prefix}desk" hidden aria-label="Choose the better image">
  <p class="sail-ask">Which image is better for</p>
  <h2 class="sail-prompt" data-testid="{prefix}prompt" aria-live="polite"></h2>
  <div class="sail-pair" data-testid="{prefix}pair">{sides}</div>
  <div class="sail-answers" role="group" aria-label="Answers">{_buttons(answers, prefix=button)}</div>
  <div class="sail-answers sail-tools" role="group" aria-label="Tools">
    {looking}{_buttons(more, prefix=button)}
    <span class="sail-zoom" data-tool="scale" data-testid="{button}-scale"></span>
  </div>
</section>
<p class="sail-said" aria-live="polite" data-testid="{prefix}announcement"></p>
"""
