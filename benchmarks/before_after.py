"""Nine prompts as the starter draws them and as an adapter does: `python -m benchmarks.before_after`.

The first nine held-out prompts that leave open style and background, each from one noise, one below the
other, in one PNG; about a minute. The picture in README.md is of

    python -m sail loop --model data/starter --prompts data/prompts/starter.txt --seed-pairs 96 --rounds 1 \\
        --annotator "python -m benchmarks.taste" --out OUT
    python -m benchmarks.before_after --adapter OUT/runs/0003-train/adapter
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from itertools import compress
from pathlib import Path

from PIL import Image

from benchmarks.running_app import ROOT
from data.starter.recipe.evaluate import named_attributes
from sail.rounds import parse_prompts

PROMPTS = 9
SIDE, GAP = 108, 4


def first_open_prompts() -> list[str]:
    """Held-out prompts of which neither style nor background is told: in their order, none is picked."""
    held_out = parse_prompts((ROOT / "data/prompts/heldout.txt").read_text())
    named = named_attributes(held_out)
    is_open = (not {"style", "background"} & set(own) for own in named)
    return [*compress(held_out, is_open)][:PROMPTS]


def drawn(adapter: list[str], folder: Path) -> list[Image.Image]:
    """An image of each prompt. `adapter` is what the command line is told of one."""
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(first_open_prompts()) + "\n")
    out = folder / f"images{len(adapter)}"
    command = [*("-m", "sail", "sample", "--model", "data/starter"), *adapter]
    flags = ["--prompts", str(prompts), "--per-prompt", "1", "--noise-seed", "0", "--out", str(out)]
    subprocess.run([sys.executable, *command, *flags], cwd=ROOT, check=True)
    return [Image.open(file).convert("RGB") for file in sorted(out.glob("*.png"))]


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    step = SIDE + GAP
    whole = Image.new("RGB", (len(rows[0]) * step - GAP, len(rows) * step - GAP), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            whole.paste(image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x * step, y * step))
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", type=Path, required=True, help="folder of a LoRA of the starter's")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/before_after.png")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ways: tuple[list[str], ...] = ([], ["--adapter", str(flags.adapter.resolve())])
        sheet([drawn(way, Path(folder)) for way in ways]).save(flags.out, optimize=True)


if __name__ == "__main__":
    main()
