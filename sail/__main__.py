"""The command line. Parses, calls, and turns a user's mistake into one sentence; computes nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from sail.config import Kind, LoopSettings, ModelRef, Precision, first_fault
from sail.rounds import parse_prompts
from sail.runfolder import Lost, RunBusy, RunFolder, Stopped

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

RunDir = Annotated[Path, typer.Argument(help="A run folder: request.json and its inputs.")]
Model = Annotated[str, typer.Option(help="A diffusers folder, a .safetensors file or a hub id.")]
Revision = Annotated[str | None, typer.Option(help="Commit of a hub model.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Arithmetic; auto: bfloat16 on a GPU.")]
PromptFile = Annotated[Path, typer.Option(help="Prompts, one a line.")]

STOPPED = 3
"""Exit status of a run that was asked to stop."""


@app.command()
def propose(run_dir: RunDir) -> None:
    """Draw candidates, judge them, rank self pairs."""
    _execute(run_dir, "propose")


@app.command()
def train(run_dir: RunDir) -> None:
    """Train one adapter on pairs.jsonl, measure it and apply the gate."""
    _execute(run_dir, "train")


@app.command()
def evaluate(run_dir: RunDir) -> None:
    """Measure one adapter: judge accuracy, diversity, saturation."""
    _execute(run_dir, "evaluate")


@app.command()
def export(run_dir: RunDir) -> None:
    """Write the adapter for other tools, with a model card."""
    _execute(run_dir, "export")


@app.command()
def compare(run_dir: RunDir) -> None:
    """Draw the same noise with several adapters, side by side."""
    _execute(run_dir, "compare")


@app.command()
def sample(
    model: Model,
    prompts: PromptFile,
    out: Annotated[Path, typer.Option(help="Folder for the images and index.jsonl.")],
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA.")] = None,
    per_prompt: Annotated[int, typer.Option(min=1)] = 4,
    noise_seed: int = 0,
    steps: Annotated[int | None, typer.Option(min=1, show_default="the model's")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, show_default="the model's")] = None,
    revision: Revision = None,
    precision: PrecisionOption = "auto",
) -> None:
    """Draw images; the same noise seed, prompt and index start from the same noise under any adapter."""
    with _mistakes_as_sentences():
        from sail.proposing import sample_to_folder

        asked = ModelRef(source=model, revision=revision, precision=precision).checked()
        changes = {"steps": steps, "guidance": guidance}
        sampling = LoopSettings.for_model(asked).sampling.model_copy(
            update={name: value for name, value in changes.items() if value is not None}
        )
        sample_to_folder(
            asked,
            read_prompts(prompts),
            out,
            adapter=adapter,
            per_prompt=per_prompt,
            noise_seed=noise_seed,
            sampling=sampling,
        )


@app.command()
def loop(
    model: Model,
    prompts: PromptFile,
    annotator: Annotated[str, typer.Option(help="A program: JSON pairs on stdin, JSON labels on stdout.")],
    out: Annotated[Path, typer.Option(help="Folder of the loop; the same command goes on in it.")],
    seed_pairs: Annotated[int, typer.Option(min=1)] = 96,
    rounds: Annotated[int, typer.Option(min=0)] = 2,
    prompts_per_round: Annotated[int | None, typer.Option(min=1, show_default="64")] = None,
    candidates: Annotated[int | None, typer.Option(min=2, show_default="8")] = None,
    steps: Annotated[int | None, typer.Option(min=1, show_default="200")] = None,
    noise_seed: Annotated[int | None, typer.Option(show_default="0")] = None,
    preset: Annotated[str, typer.Option(help="default (what the model brings) or paper.")] = "default",
    settings: Annotated[Path | None, typer.Option(help="LoopSettings as JSON, instead of a preset.")] = None,
    revision: Revision = None,
    precision: PrecisionOption = "auto",
) -> None:
    """The whole loop with an annotator program; writes OUT/result.json after every round."""
    with _mistakes_as_sentences():
        from sail.loop import Loop, LoopRequest, lead

        base = ModelRef(source=model, revision=revision, precision=precision).checked()
        asked = _loop_settings(base, preset, settings, prompts_per_round, candidates, steps, noise_seed)
        request = LoopRequest(
            model=base,
            prompts=tuple(read_prompts(prompts)),
            seed_pairs=seed_pairs,
            settings=asked,
        )
        if lead(lambda: Loop(out, request).run(annotator, rounds=rounds)):
            typer.echo(out / "result.json")


def _loop_settings(
    model: ModelRef,
    preset: str,
    file: Path | None,
    prompts: int | None,
    candidates: int | None,
    steps: int | None,
    noise_seed: int | None,
) -> LoopSettings:
    if preset not in ("default", "paper"):
        raise ValueError(f"There is no preset {preset!r}. Presets: default, paper.")
    base = LoopSettings.paper() if preset == "paper" else LoopSettings.for_model(model)
    if file is not None:
        base = LoopSettings.model_validate_json(file.read_text(encoding="utf-8"))
    changes: dict[str, Any] = {}
    if noise_seed is not None:
        changes["noise_seed"] = noise_seed
    if prompts is not None:
        changes["prompts_per_round"] = prompts
    if candidates is not None:
        changes["num_candidates"] = candidates
    if steps is not None:
        changes["optimisation"] = base.optimisation.model_copy(update={"steps": steps})
    return base.model_copy(update=changes)


def read_prompts(file: Path) -> list[str]:
    """The prompts of a file. ValueError names the file and says what is wrong with it."""
    try:
        return parse_prompts(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"The prompt file {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"The prompt file {file} is not UTF-8 text. Save it as UTF-8.") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _execute(run_dir: Path, kind: Kind) -> None:
    with _mistakes_as_sentences():
        folder = RunFolder(run_dir)
        found = folder.request().kind
        if found != kind:
            raise ValueError(f"{run_dir} asks for {found}. Use: python -m sail {found} {run_dir}")
        from sail.running import execute

        execute(folder)


@contextlib.contextmanager
def _mistakes_as_sentences() -> Iterator[None]:
    """Exit 2 with one sentence for a user's mistake, 3 after a stop; anything else keeps its traceback."""
    try:
        yield
    except Stopped as stop:
        typer.echo(str(stop), err=True)
        raise typer.Exit(STOPPED) from None
    except ValidationError as error:
        typer.echo(first_fault(error), err=True)
        raise typer.Exit(2) from None
    except (ValueError, RunBusy, Lost, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    # Look-ups happen only where a model is asked for by hub id.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Read when torch is loaded: threads that spin while they wait take the core from whoever has work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(app())
