"""Write the model card from what was measured. Computes nothing and holds no figure of its own."""

import json
from pathlib import Path
from typing import Any

from .art import PACKAGES
from .files import publish_text
from .words import BACKGROUNDS, CLASSES, SIZES, STYLES, SUBJECTS

CHANGES = {
    "3d": "cropped, scaled, given a soft shadow",
    "flat": "rendered, cropped, scaled",
    "cartoon": "rendered, cropped, scaled, given a dark contour",
    "words": "labels looked up, none copied but the subjects' names",
}
MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions: The above copyright notice and this
permission notice shall be included in all copies or substantial portions of the Software. THE
SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
HISTORY = """\
This release did not come about in one run of the recipe: its first 66,592 latents, its decoder and the
  readers saw scenes whose drawings lay up to 8 pixels off the middle, and its text encoder was pretrained
  and joined to the time embedding only after those."""
TARGETS = {"subject": 0.80, "style": 0.85, "background": 0.85, "size": 0.95}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sources() -> str:
    rows = [
        [what, f"`{package.name}` {package.version}", package.licence, package.credit, CHANGES[what]]
        for what, package in PACKAGES.items()
    ]
    return table(["used for", "npm package", "licence", "credit", "changed"], rows)


def read_accuracies(accuracy: dict[str, Any]) -> str:
    rows = [
        [reader, kind, *(f"{100 * shares[name]:.1f} %" for name in CLASSES)]
        for reader, kinds in accuracy.items()
        for kind, shares in kinds.items()
    ]
    return table(["reader", "held-out scenes", *CLASSES], rows)


def found_shares(found: dict[str, float]) -> str:
    rows = [[name, f"{100 * found[name]:.1f} %", f"{100 * TARGETS[name]:.0f} %"] for name in CLASSES]
    return table(["attribute", "found", "aim"], rows)


def parts(training: dict[str, Any]) -> str:
    rows = [[part["part"], f"`{part['class']}`", f"{part['parameters']:,}"] for part in training["parts"]]
    return table(["part", "class", "parameters"], rows)


def shortfall(found: dict[str, float]) -> str:
    """What a model below its aims has to say of itself; nothing for one that meets them."""
    below = [name for name in CLASSES if found[name] < TARGETS[name]]
    if not below:
        return ""
    return f"""
Its training is not finished; what falls short of the aims above: {", ".join(below)}. Small subjects are
still blurred. The recipe goes on from these weights.
"""


def card(training: dict[str, Any], evaluation: dict[str, Any], accuracy: dict[str, Any]) -> str:
    steps, guidance, threads = evaluation["steps"], evaluation["guidance"], evaluation["threads"]
    draw = f"{evaluation['solver']}, {steps} steps, guidance {guidance}"
    options = f"--images {training['denoiser_images']} --decoder-steps {training['decoder_steps']}"
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# The starter model

A small latent diffusion model of Stable Diffusion's shape, trained from random weights on CPU cores, so
that SAIL can be tried, taught and tested without a download. It draws one of {len(SUBJECTS)} subjects at
64 x 64 pixels.

![64 samples](samples.png)

The first 64 of `../prompts/all_attributes.txt`, not picked: {draw}.

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("data/starter")
prompt = "a big 3d fox on a blue background"
image = pipeline(prompt, num_inference_steps={steps}, guidance_scale={guidance}).images[0]
```

## What it knows

Captions such as "a big 3d fox on a blue background". Style, background and size may be left out; then
the model chooses, and images of one prompt differ in ways people have opinions about.

- Subjects: {", ".join(SUBJECTS)}.
- Styles: {", ".join(STYLES)}.
- Backgrounds: {", ".join(BACKGROUNDS)}.
- Sizes: {", ".join(SIZES)}.

## Parts

{parts(training)}

The VAE's encoder is closed form: 4 x 4 patches, projected on {training["latent_channels"]} principal
components. Only its decoder was trained. UNet and VAE are stored in half precision; the text encoder is
not, because transformers would load it in half precision where diffusers loads the rest in single. The
scheduler predicts velocity, with zero terminal signal-to-noise ratio and trailing timesteps; another
choice of these spoils the pictures.

## Training

- {training["scenes"]:,} scenes: every combination of the attributes, {training["jitters"]} times in other
  shades.
- Text encoder: taught to tell the captions' attributes apart, half a minute. Then UNet and text encoder
  together: {training["denoiser_images"]:,} latents seen, the last of them in batches of
  {training["denoiser_batch"]}. Style, background and size each named in half of the captions, one caption
  in ten empty. The averaged weights are shipped.
- {HISTORY}
- Decoder: {training["decoder_steps"]:,} steps; {training["decoder_psnr_db"]} dB over 128 scenes, encoded
  and decoded.

`python -m data.starter.recipe all {options}` rebuilds everything and resumes what was interrupted.

## Measured

{evaluation["images"]} prompts that name every attribute, one image each, {draw}; the share in which
the *measuring* reader finds what the prompt names:

{found_shares(evaluation["found"])}

{evaluation["seconds_per_image"]} s an image on {threads} thread{"s" if threads > 1 else ""}.

Two attribute readers lie in `readers/`. They were trained on disjoint halves of the scenes, so that one
can play annotators and the other measure. Share of held-out scenes they read rightly, as composed and
after the VAE with a little noise on the latents:

{read_accuracies(accuracy)}

## Sources

{sources()}

Apache-2.0: https://www.apache.org/licenses/LICENSE-2.0.
CC-BY-4.0: https://creativecommons.org/licenses/by/4.0/.
MIT:

> {MIT.replace(chr(10), chr(10) + "> ")}

## Limits
{shortfall(evaluation["found"])}
It knows the words above and no others; anything else in a prompt is noise to it. One subject at a time.
Its subjects are three drawings each, so a sample is a redrawing, not an invention. It contains no
people. It is a test bench for preference alignment and good for nothing else.
"""


def write_card(folder: Path) -> None:
    """Write `folder`/README.md from training.json, evaluation.json and readers/accuracy.json."""
    names = ("training.json", "evaluation.json", "readers/accuracy.json")
    publish_text(folder / "README.md", card(*(json.loads((folder / name).read_text()) for name in names)))
