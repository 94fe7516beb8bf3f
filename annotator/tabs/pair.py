"""Two images, the buttons under them and their keys, in Label and Compare alike. Markup only."""

from __future__ import annotations

from collections.abc import Iterable

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


def answers(buttons: Iterable[tuple[str, str, str, str]], *, prefix: str) -> str:
    """A button for each (answer, key, title, keys in words); `prefix` begins what tests know it by."""
    return "".join(
        f'<button type="button" class="sail-answer" data-answer="{value}" data-testid="{prefix}-{value}" '
        f'title="Key: {keys}"><kbd aria-hidden="true">{key}</kbd> {title}</button>'
        for value, key, title, keys in buttons
    )


def side(side: str, *, attribute: str = "answer", prefix: str = "image", part: str = "") -> str:
    """The frame of one image, which a click chooses."""
    own = f'data-part="{part}" ' if part else ""
    return (
        f'<button type="button" class="sail-image" data-{attribute}="{side}" {own}'
        f'data-testid="{prefix}-{side}" aria-label="{side.title()} image: choose it"></button>'
    )


def tools(more: str = "", *, prefix: str) -> str:
    """What shows the two more closely (static/closer.js), and `more` buttons beside it."""
    # Not answers: flip is held, not clicked.
    looking = "".join(
        f'<button type="button" class="sail-answer" data-tool="{name}" data-testid="{prefix}-{name}" '
        f'title="Key: {keys}"><kbd aria-hidden="true">{key}</kbd> {title}</button>'
        for name, key, title, keys in _LOOKING
    )
    return (
        '<div class="sail-answers sail-tools" role="group" aria-label="Tools">'
        f'{looking}{more}<span class="sail-zoom" data-tool="scale" data-testid="{prefix}-scale"></span></div>'
    )
