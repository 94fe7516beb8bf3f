"""Does the loop teach a taste? Run it with a simulated person; compare with base on held-out prompts.

    python -m benchmarks.loop_gain --repeats 3

For each repeat labels and noise seeds are drawn anew; three tastes take turns. Shares are over images of
held-out prompts, on the same noise seeds for base, round 0 and the current round, read by the measuring
reader, which the simulated person never uses.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

from benchmarks.taste import Person, Taste
from data.starter.recipe.evaluate import named_attributes
from data.starter.recipe.readers import AttributeReader
from sail.files import publish_json, read_lines

TASTES = (
    Taste({"style": ("cartoon",), "background": ("green", "blue", "purple")}),
    Taste({"style": ("3d",), "background": ("red", "orange", "yellow")}),
    Taste({"style": ("flat",), "background": ("white", "black", "blue")}),
)
STARTER = "data/starter"


def sail(*arguments: object) -> float:
    """Run one command of the command line; return its seconds."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "sail", *map(str, arguments)], check=True)
    return time.monotonic() - began


def repeat(number: int, asked: argparse.Namespace) -> dict[str, Any]:
    """One loop and its comparison with base."""
    taste, out = TASTES[number % len(TASTES)], asked.out / f"repeat-{number}"
    person = [sys.executable, "-m", "benchmarks.taste", "--noise-seed", str(number)]
    for attribute, names in taste.liked.items():
        person += [f"--{attribute}", *names]
    sail(
        *(
            "loop",
            "--model",
            STARTER,
            "--prompts",
            "data/prompts/starter.txt",
            "--annotator",
            shlex.join(person),
        ),
        *("--seed-pairs", asked.seed_pairs, "--rounds", asked.rounds, "--noise-seed", 1000 * number),
        *("--out", out / "loop", *asked.more),
    )
    result = json.loads((out / "loop/result.json").read_text())
    adapters = {"base": None, "round 0": result["rounds"][0]["adapter"]}
    if result["current"] is not None:
        adapters["current"] = result["rounds"][result["current"]]["adapter"]
    read = {name: _sampled(name, adapter, number, out, asked) for name, adapter in adapters.items()}
    rounds = [
        {key: one[key] for key in one if key not in ("adapter", "sha256", "reasons")}
        for one in result["rounds"]
    ]
    return {
        "taste": dict(taste.liked),
        "agreement_with_itself": _agreement(taste, number, out),
        "current": result["current"],
        "shares": {name: _shares(lines, taste) for name, lines in read.items()},
        "gain": {name: _paired(read[name], read["base"], taste) for name in read if name != "base"},
        "rounds": rounds,
        "stage_seconds": _stage_seconds(out / "loop"),
    }


def _sampled(
    name: str, adapter: str | None, number: int, out: Path, asked: argparse.Namespace
) -> list[dict[str, Any]]:
    """Held-out prompts drawn and read: prompt, named attributes and read attributes of every image."""
    folder = out / name.replace(" ", "-")
    sail(
        *("sample", "--model", STARTER, "--prompts", "data/prompts/heldout.txt", "--out", folder),
        *("--per-prompt", asked.per_prompt, "--noise-seed", 7_000_000 + number),
        *(("--adapter", adapter) if adapter else ()),
    )
    index = read_lines(folder / "index.jsonl")
    reader = AttributeReader.load("measuring")
    found = reader.name([Image.open(line["path"]) for line in index])
    named = named_attributes(line["prompt"] for line in index)
    return [
        {"prompt": line["prompt"], "named": n, "read": r}
        for line, n, r in zip(index, named, found, strict=True)
    ]


def _liked(lines: list[dict[str, Any]], taste: Taste) -> np.ndarray:
    """(images,) 1 where style and background are both liked."""
    return np.array([all(taste.likes(line["read"]).values()) for line in lines], float)


def _shares(lines: list[dict[str, Any]], taste: Taste) -> dict[str, float]:
    likes = [taste.likes(line["read"]) for line in lines]
    named = {
        attribute: np.mean(
            [
                line["read"][attribute] == line["named"][attribute]
                for line in lines
                if attribute in line["named"]
            ]
        )
        for attribute in ("subject", "style", "background", "size")
    }
    return {
        **{f"{name} liked": float(np.mean([own[name] for own in likes])) for name in taste.liked},
        "both liked": float(_liked(lines, taste).mean()),
        **{f"named {attribute} found": float(value) for attribute, value in named.items()},
    }


def _paired(lines: list[dict[str, Any]], base: list[dict[str, Any]], taste: Taste) -> dict[str, float]:
    """Mean paired change of the share with both liked, 95 % t interval over prompts."""
    change = _liked(lines, taste) - _liked(base, taste)
    prompts = [line["prompt"] for line in base]
    by_prompt = [
        change[[i for i, own in enumerate(prompts) if own == prompt]].mean()
        for prompt in dict.fromkeys(prompts)
    ]
    mean, error = float(np.mean(by_prompt)), float(stats.sem(by_prompt))
    half = float(stats.t.ppf(0.975, len(by_prompt) - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _agreement(taste: Taste, number: int, out: Path) -> float:
    """How often the same person gives the same answer to a pair that was no tie, asked a second time."""
    again, reader = Person(number + 500), AttributeReader.load("annotating")
    labels = [line for line in read_lines(out / "loop/labels.jsonl") if line["label"] in ("left", "right")]
    sides = [
        taste.utilities([Image.open(line[side]) for line in labels], reader).tolist()
        for side in ("left", "right")
    ]
    return float(
        np.mean(
            [
                again.choose(*points) == line["label"]
                for line, points in zip(labels, zip(*sides, strict=True), strict=True)
            ]
        )
    )


def _stage_seconds(loop: Path) -> dict[str, float]:
    return {
        run.name: json.loads((run / "result.json").read_text())["seconds"]
        for run in sorted((loop / "runs").iterdir())
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="number of the first repeat")
    parser.add_argument("--seed-pairs", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--per-prompt", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("data/projects/loop_gain"))
    parser.add_argument("more", nargs="*", help="after --: further flags of `sail loop`")
    asked = parser.parse_args()
    for number in range(asked.first, asked.first + asked.repeats):
        found = repeat(number, asked)
        publish_json(asked.out / f"repeat-{number}.json", found)
        print(json.dumps({"repeat": number, **found["gain"], "current": found["current"]}), flush=True)


if __name__ == "__main__":
    main()
