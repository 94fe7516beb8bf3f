"""The throughput benchmark: its shapes are the published ones, and both loops compute the same loss."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import throughput
from benchmarks.shapes import SHAPES, unet_of
from benchmarks.throughput import Bench, last_rate, measured
from sail import backbones
from sail.config import Lora, Loss, Mixup, Sampling, Scoring
from sail.model_ref import ModelRef
from sail.settings import LoopSettings


@pytest.mark.parametrize(("name", "parameters"), [("sd15-512", 859_520_964), ("sdxl-1024", 2_567_463_684)])
def test_the_shapes_have_as_many_parameters_as_the_published_models(name, parameters):
    with torch.device("meta"):
        unet = unet_of(SHAPES[name])
    assert sum(one.numel() for one in unet.parameters()) == parameters


@pytest.fixture
def bench(model: ModelRef, tmp_path: Path) -> Bench:
    asked = argparse.Namespace(
        pairs=3,
        self_pairs=2,
        self_pair_draws="judged",
        batch=4,
        steps=4,
        block=2,
        prompts=2,
        candidates=2,
        compiled=False,
        device="cpu",
    )
    settings = LoopSettings(
        lora=Lora(rank=2),
        loss=Loss(beta=200),
        sampling=Sampling(steps=2),
        mixup=Mixup(self_fraction=0.5),
        scoring=Scoring(draws=3),
    )
    (tmp_path / "work").mkdir()
    loaded = (backbones.load(model), backbones.load(model))
    return Bench(*loaded, model, settings, asked, tmp_path / "work")


def test_both_loops_have_the_same_loss_on_the_same_draws_and_all_figures_are_there(bench):
    found = measured(bench)
    assert found["largest_loss_difference"] < 1e-5
    assert found["train_pairs_per_s"].keys() == {"ours", "plain"}
    assert all(value > 0 for value in found["train_pairs_per_s"].values())
    assert found["train_ratio"] > 0 and found["candidates_by_pipeline_per_s"] > 0
    assert found["candidates_per_s"] > found["scored_per_s"] > 0
    # 16 pairs drawn, half of them self pairs, a tenth of those without their prompt.
    assert found["reference_share"] == pytest.approx((8 + round(0.8)) / 16, abs=1e-3)


def test_a_compiled_denoiser_has_the_same_losses_in_every_part_it_plays(bench, monkeypatch):
    compiled = nn.Module.compile
    # Traced as ever, but without minutes of building kernels.
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled(module, backend="eager"))
    bench.asked.compiled = True
    assert measured(bench)["largest_loss_difference"] < 1e-5
    assert bench.backbone.denoiser._compiled_call_impl is not None


def test_reference_errors_that_are_not_those_of_the_draws_are_found_out(bench, monkeypatch):
    right = Bench.judged

    def wrong(*asked):
        known = right(*asked)
        return replace(known, errors=[(winner + 0.1, loser) for winner, loser in known.errors])

    monkeypatch.setattr(Bench, "judged", wrong)
    assert measured(bench)["largest_loss_difference"] > 1e-4


def test_a_plain_loop_with_another_loss_is_found_out(bench, monkeypatch):
    plain = throughput.PlainLoop.loss_on
    monkeypatch.setattr(throughput.PlainLoop, "loss_on", lambda *asked: plain(*asked) + 1e-3)
    assert measured(bench)["largest_loss_difference"] > 1e-4


def test_what_is_not_computed_twice_is_what_the_speedup_is_reckoned_from():
    nothing, both = throughput.Encoding(0.0, 0.0), throughput.Encoding(image=0.5, prompt=1.0)
    assert throughput.speedup_over_plain(nothing) == 1
    assert throughput.speedup_over_plain(nothing, reference_share=0) == pytest.approx(4 / 3)
    assert throughput.speedup_over_plain(both) == pytest.approx(10 / 8)


def test_the_public_script_is_given_the_same_pairs_and_its_rate_is_read(bench, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pandas\n"
        "known = dict(word.removeprefix('--').split('=') for word in sys.argv[1:])\n"
        "rows = len(pandas.read_parquet(known['dataset_name'] + '/train.parquet'))\n"
        "assert (rows, known['train_batch_size']) == (5, '4'), known\n"
        "print('Steps: 100%| 4/4 [00:02<00:00,  2.00it/s, loss=1]', file=sys.stderr)\n"
    )
    said = throughput.peer_figures(script, bench, bench.pixels(), Path(bench.model.source))
    assert said == {"pairs_per_s": 2.0 * 4}


def test_a_public_script_that_cannot_be_run_is_said_with_its_last_word(bench, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import not_there")
    said = throughput.peer_figures(script, bench, bench.pixels(), Path(bench.model.source))
    assert "script.py could not be run here: ModuleNotFoundError" in said["not_run"]


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        ("Steps:  50%| 1/2 [00:01<00:01,  2.50it/s]\rSteps: 100%| 2/2 [00:02<00:00,  4.00it/s, loss=1]", 4.0),
        ("Steps: 100%| 2/2 [00:02<00:00,  2.00s/it, loss=0.69]", 0.5),
    ],
)
def test_the_public_scripts_rate_is_read_from_its_bar(told, rate):
    assert last_rate(told) == rate


def test_a_script_that_tells_no_rate_is_said():
    with pytest.raises(ValueError, match="names no rate"):
        last_rate("Traceback: no module")
