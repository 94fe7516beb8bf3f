"""The command line. Parses, calls, and turns a user's mistake into one sentence; computes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from sail.annotate import program
from sail.config import first_fault
from sail.files import sha256_file
from sail.model_ref import ModelRef, Precision
from sail.requests import Kind
from sail.rounds import is_held_out, parse_prompts
from sail.runfolder import Lost, RunBusy, RunFolder, Stopped
from sail.settings import LoopSettings

ABOUT = "Align a text-to-image model with somebody's taste (SAIL). `loop` does all of it, the others parts."
app = typer.Typer(add_completion=False, no_args_is_help=True, help=ABOUT, pretty_exceptions_enable=False)

RunDir = Annotated[Path, typer.Argument(help="A run folder: request.json and its inputs.")]
Model = Annotated[str, typer.Option(help="A diffusers folder, a .safetensors file or a Hugging Face name.")]
Revision = Annotated[str | None, typer.Option(help="Commit of a hub model.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Arithmetic; auto: bfloat16 on a GPU that has it.")]
PromptFile = Annotated[Path, typer.Option(help="Prompts, one per line.")]

MISTAKEN = 2
"""Exit status after a user's mistake."""
STOPPED = 3
"""Exit status of a run that was asked to stop."""
INTERRUPTED = 130
"""As of a shell, after Ctrl+C."""


@app.command()
def propose(run_dir: RunDir) -> None:
    """Draw candidates, judge them, rank self pairs."""
    _execute(run_dir, "propose")


@app.command()
def train(run_dir: RunDir) -> None:
    """Train one adapter on pairs.jsonl, measure it and apply the gate."""
    _execute(run_dir, "train")


@app.command()
def evaluate(
    run_dir: Annotated[Path, typer.Argument(help="A run folder; with --scorers also a loop's, or a LoRA's.")],
    scorers: Annotated[
        str | None,
        typer.Option(
            help="Names after commas: pickscore, hpsv2, clip, aesthetic, or package.module:factory."
        ),
    ] = None,
    scorer_path: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: a scorer's folder, in place of the hub.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Held-out prompts, one per line.", show_default="the run's own")
    ] = None,
    per_prompt: Annotated[int, typer.Option(min=1, help="Images of a prompt.")] = 1,
    noise_seed: Annotated[int, typer.Option(help="Of the images.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for images and scores.", show_default="RUN_DIR/scores")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Base model, where RUN_DIR is a LoRA's folder.")] = None,
    revision: Revision = None,
    precision: PrecisionOption = "auto",
) -> None:
    """Measure one adapter: judge accuracy, diversity, saturation; or, with --scorers, ask others about it.

    The scorers are shown the adapter's images and base's, of the same prompts from the same noise.
    """
    belonging = (scorer_path, prompts, out, model, revision, per_prompt > 1, noise_seed, precision != "auto")
    if scorers is None and not any(belonging):
        _execute(run_dir, "evaluate")
        return
    with _mistakes_as_sentences():
        if scorers is None:
            raise ValueError("These options belong to --scorers. Name some, or leave them out.")
        names = _scorer_names(scorers)
        paths = _scorer_paths(scorer_path or [], names)
        from sail import evaluating
        from sail.scorers import find

        if model is None and (revision or precision != "auto"):
            raise ValueError(f"{run_dir} says what its model is. Leave out --revision and --precision.")
        base = _model(model, revision, precision) if model else None
        subject = evaluating.subject_of(run_dir, model=base, prompts=read_prompts(prompts) if prompts else ())
        # Before the drawing, not after it.
        found = [find(name, paths.get(name)) for name in names]
        typer.echo(
            evaluating.evaluate_with(
                found, subject, out or run_dir / "scores", per_prompt=per_prompt, noise_seed=noise_seed
            ),
            nl=False,
        )


def _scorer_names(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ValueError("--scorers names none. Give one or more, with commas between them.")
    return names


def _scorer_paths(given: list[str], names: list[str]) -> dict[str, Path]:
    paths = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals or not path:
            raise ValueError(f"--scorer-path {one!r} is not NAME=DIR.")
        if name not in names:
            raise ValueError(f"--scorer-path is for {name!r}, which --scorers does not name.")
        paths[name] = Path(path)
    return paths


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
    per_prompt: Annotated[int, typer.Option(min=1, help="Images of a prompt.")] = 4,
    noise_seed: Annotated[int, typer.Option(help="Of the images.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, show_default="the model's")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, max=100, show_default="the model's")] = None,
    revision: Revision = None,
    precision: PrecisionOption = "auto",
) -> None:
    """Draw images; the same noise seed, prompt and index start from the same noise under any adapter."""
    with _mistakes_as_sentences():
        from sail.samples import sample_to_folder

        asked = _model(model, revision, precision)
        changes = {"sampling": _given({"steps": steps, "guidance": guidance})}
        sampling = LoopSettings.for_model(asked).changed(changes).sampling
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
def import_pairs(
    model: Model,
    parquet: Annotated[Path, typer.Option(help="A parquet file with Pick-a-Pic's columns, or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the pairs; the same command goes on in it.")],
    share: Annotated[float, typer.Option(help="Share of the rows with a winner, at random.")] = 1.0,
    noise_seed: Annotated[int, typer.Option(help="Seed of that choice.")] = 0,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            min=1,
            metavar="HEIGHT WIDTH",
            help="In pixels, as the loop's sampling.size has it.",
            show_default="the model's",
        ),
    ] = None,
    revision: Revision = None,
    precision: PrecisionOption = "auto",
) -> None:
    """Make seed pairs for `loop --pairs` of images and labels that others collected."""
    with _mistakes_as_sentences():
        from sail import importing

        asked = _model(model, revision, precision)
        done = importing.import_pairs(asked, parquet, out, share=share, noise_seed=noise_seed, size=size)
        typer.echo(f"{done.pairs} pairs in {out}, of {done.in_words()}")


@app.command()
def loop(
    model: Model,
    prompts: PromptFile,
    out: Annotated[Path, typer.Option(help="Folder of the loop; the same command goes on in it.")],
    annotator: Annotated[
        str | None, typer.Option(help="A program: JSON pairs on stdin, JSON labels on stdout.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Instead of an annotator: what import-pairs wrote.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="labels.jsonl of another loop: nobody is asked again about the same two images."),
    ] = None,
    seed_pairs: Annotated[
        int | None, typer.Option(min=1, help="Pairs that the annotator is shown.", show_default="96")
    ] = None,
    rounds: Annotated[int, typer.Option(min=0, help="Self-annotated rounds after the first.")] = 2,
    prompts_per_round: Annotated[
        int | None, typer.Option(min=1, help="Prompts a round to choose for.", show_default="the preset's")
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=2, help="Images of each prompt that the model chooses among.", show_default="the preset's"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps of a round.", show_default="the preset's")
    ] = None,
    noise_seed: Annotated[int | None, typer.Option(help="Seed of all noise.", show_default="0")] = None,
    preset: Annotated[str, typer.Option(help="default (what the model brings) or paper.")] = "default",
    settings: Annotated[
        Path | None,
        typer.Option(help="LoopSettings as JSON: what it names takes the place of the preset's values."),
    ] = None,
    revision: Revision = None,
    precision: PrecisionOption = "auto",
) -> None:
    """The whole loop with an annotator program or imported pairs. Writes OUT/result.json after each round."""
    with _mistakes_as_sentences():
        if (annotator is None) == (pairs is None):
            not_both = ", not both" if pairs is not None else ""
            raise ValueError(
                f"Give --annotator, a program to ask, or --pairs, what import-pairs wrote{not_both}."
            )
        if labels is not None and (annotator is None or not labels.is_file()):
            raise ValueError(f"--labels {labels} is no file, or there is no --annotator for what it lacks.")
        if pairs is not None and seed_pairs is not None:
            raise ValueError("--pairs are all learned from. Leave out --seed-pairs.")
        from sail.importing import PAIRS, imported
        from sail.loop import Loop, LoopRequest, held_out_by_caption, lead

        base = _model(model, revision, precision)
        options = {
            "noise_seed": noise_seed,
            "prompts_per_round": prompts_per_round,
            "num_candidates": candidates,
            "optimisation": None if steps is None else {"steps": steps},
        }
        asked = _loop_settings(base, preset, settings, _given(options))
        given = imported(pairs) if pairs is not None else []
        request = LoopRequest(
            model=base,
            prompts=tuple(read_prompts(prompts)),
            seed_pairs=len(given) or seed_pairs or 96,
            settings=asked,
            pairs=sha256_file(pairs / PAIRS) if pairs is not None else None,
            held_out_by="ordinal" if pairs is None else "caption",
        )

        def run() -> None:
            # Before the folder is the loop's, and before minutes of drawing.
            if annotator is not None:
                program(annotator)
                most = sum(not is_held_out(ordinal, asked) for ordinal in range(request.seed_pairs))
                if most < asked.min_human_pairs:
                    raise ValueError(
                        f"Of {request.seed_pairs} seed pairs at most {most} can be learned from, "
                        f"and training needs {asked.min_human_pairs}. Ask for more with --seed-pairs."
                    )
            started = Loop(out, request, learned={pair.prompt for pair in given}, labels=labels)
            if annotator is not None:
                started.run(annotator, rounds=rounds)
            else:
                started.run_on(held_out_by_caption(given, asked), rounds=rounds)

        if lead(run):
            typer.echo(out / "result.json")


def _model(source: str, revision: str | None, precision: Precision) -> ModelRef:
    """One on this machine by its whole path: what is written goes on from any folder."""
    found = os.path.abspath(source) if os.path.exists(source) else source
    return ModelRef(source=found, revision=revision, precision=precision).checked()


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _loop_settings(model: ModelRef, preset: str, file: Path | None, changes: dict[str, Any]) -> LoopSettings:
    if preset not in ("default", "paper"):
        raise ValueError(f"There is no preset {preset!r}. Presets: default, paper.")
    base = LoopSettings.paper() if preset == "paper" else LoopSettings.for_model(model)
    if file is not None:
        base = _changed_by(file, base)
    return base.changed(changes)


def _changed_by(file: Path, settings: LoopSettings) -> LoopSettings:
    """ValueError names the file and what is wrong with it."""
    try:
        changes = json.loads(file.read_bytes())
        if not isinstance(changes, dict):
            raise ValueError("Settings are an object in braces, by name.")
        return settings.changed(changes)
    except OSError as error:
        raise ValueError(f"The settings file {file} cannot be read: {error.strerror}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: Invalid JSON: {error}.") from error
    except ValidationError as error:
        raise ValueError(f"{file}: {first_fault(error)}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


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
        typer.echo(folder.path / "result.json")


@contextlib.contextmanager
def _mistakes_as_sentences() -> Iterator[None]:
    """Exit 2 with one sentence for a user's mistake, 3 after a stop; anything else keeps its traceback."""
    try:
        yield
    except Stopped as stop:
        _leave(str(stop), STOPPED)
    except ValidationError as error:
        _leave(first_fault(error))
    except KeyboardInterrupt:
        _leave("Interrupted. The same command goes on.", INTERRUPTED)
    except OSError as error:
        _leave(f"{error.filename}: {error.strerror}." if error.filename and error.strerror else str(error))
    except (ValueError, RunBusy, Lost, MemoryError) as error:
        _leave(str(error) or "Memory ran out.")
    except RuntimeError as error:
        # Where torch raised it, it is loaded.
        from sail.memory import is_out_of_memory
        from sail.running import one_sentence

        if not is_out_of_memory(error):
            raise
        _leave(one_sentence(error))


def _leave(sentence: str, status: int = MISTAKEN) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(status) from None


if __name__ == "__main__":
    # Look-ups happen only where a model is asked for by name.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Read when torch is loaded: threads that spin while they wait take the core from whoever has work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(app())
