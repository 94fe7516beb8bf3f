"""The engine on a Stable Diffusion of random weights: real diffusers, transformers and peft at tiny size."""

import errno
import json
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from engine import (
    PROMPTS,
    QUICK,
    drawn_latents,
    holding_ties,
    on_judged_draws,
    policy_of,
    sail,
    train_request,
)
from pairs import human_pairs, self_pairs, tied_pairs
from PIL import Image
from safetensors.torch import load_file, save_file

from sail import backbones, cost, monitors
from sail.backbones.stable_diffusion import StableDiffusion
from sail.candidates import publish_candidates
from sail.config import Lora, Loss, Scoring
from sail.evaluating import subject_of
from sail.files import sha256_file
from sail.model_ref import ModelRef
from sail.monitors import appearance
from sail.policy import Policy
from sail.records import LatentsRef, TrainingPair
from sail.requests import CompareRequest, EvaluateRequest, ExportRequest, Look, ProposeRequest
from sail.rounds import Round
from sail.runfolder import ADAPTER_FILE, Lost, RunFolder, Stopped
from sail.running import execute

FOR_TOOLS = "A-model-aligned-with-SAIL.safetensors"
"""What such an export is called by in other tools, after its title."""

MIRRORED = Loss(objective="mirrored")


# Backbone


def test_a_model_of_an_unknown_family_is_refused_by_name(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "PixArtAlphaPipeline"}')
    with pytest.raises(ValueError, match="PixArtAlphaPipeline"):
        backbones.load(ModelRef(source=str(tmp_path)))


# Sampling


def test_images_do_not_depend_on_which_prompts_are_drawn_with_them(model):
    policy = policy_of(model)
    together = drawn_latents(policy, PROMPTS)
    alone = drawn_latents(policy, PROMPTS[2:3])
    assert torch.allclose(together[4:6], alone, atol=1e-5)


def test_no_more_images_than_a_chunk_are_drawn_at_once(model, monkeypatch):
    policy, seen = policy_of(model), []
    predict = policy.backbone.predict
    monkeypatch.setattr(
        policy.backbone, "predict", lambda noisy, *rest: seen.append(len(noisy)) or predict(noisy, *rest)
    )
    latents = drawn_latents(policy, PROMPTS[:2], per_prompt=5, sampling=QUICK.model_copy(update={"chunk": 3}))
    assert max(seen) == 2 * 3  # with the prompt and without
    assert torch.allclose(latents, drawn_latents(policy, PROMPTS[:2], per_prompt=5), atol=1e-4)


def test_images_of_one_prompt_differ_by_index_and_by_noise_seed(model):
    policy = policy_of(model)
    first, second = drawn_latents(policy, PROMPTS[:1])
    other = drawn_latents(policy, PROMPTS[:1], noise_seed=1)[0]
    assert not torch.allclose(first, second, atol=1e-2)
    assert not torch.allclose(first, other, atol=1e-2)


def test_images_have_the_size_that_was_asked_for_by_height_and_width(model, tmp_path):
    sampling = QUICK.model_copy(update={"size": (16, 24)})
    request = ProposeRequest(model=model, prompts=PROMPTS[:1], num_candidates=2, sampling=sampling)
    folder = RunFolder.create(tmp_path / "run", request)
    execute(folder)
    assert [Image.open(file).size for file in folder.path.rglob("*.png")] == [(24, 16)] * 2


def test_an_image_says_nothing_of_how_it_was_drawn(judged):
    files = list(judged.path.rglob("*.png"))
    assert len(files) == 3 * len(PROMPTS) and all(Image.open(file).info == {} for file in files)


def test_a_resumed_propose_run_draws_only_what_is_missing_and_the_same_bits(proposed, tmp_path):
    request = proposed.request()
    folder = RunFolder.create(tmp_path / "again", request)
    execute(folder)
    before = (folder.path / "candidates/00002-1.png").read_bytes()
    kept = (folder.path / "candidates/00000.json").stat().st_mtime_ns
    for name in ("result.json", "candidates/00002.json", "candidates/00002-1.png"):
        (folder.path / name).unlink()
    execute(folder)
    assert (folder.path / "candidates/00002-1.png").read_bytes() == before
    assert (folder.path / "candidates/00000.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize("ended", [True, False])
def test_candidates_that_cannot_be_read_are_drawn_again_by_a_resume(proposed, tmp_path, ended):
    folder = RunFolder(shutil.copytree(proposed.path, tmp_path / "again"))
    broken = folder.path / "candidates/00001.json"
    before = broken.read_bytes()
    broken.write_bytes(before[:40])
    if not ended:
        (folder.path / "result.json").unlink()
    execute(folder)
    assert broken.read_bytes() == before and len(folder.candidate_sets()) == len(PROMPTS)


# Policy


def test_a_new_adapter_changes_nothing_and_the_parts_differ_once_it_is_trained(model, trained):
    fresh = policy_of(model)
    base = drawn_latents(fresh)
    fresh.add_trainable(Lora(rank=2), noise_seed=0)
    assert torch.equal(drawn_latents(fresh), base)
    aligned = policy_of(model, trained.path / "adapter")
    aligned.load("parent", trained.path / "adapter")
    assert not torch.allclose(drawn_latents(aligned), base, atol=1e-3)
    with aligned.acting_as("base"):
        assert torch.equal(drawn_latents(aligned), base)
    with aligned.acting_as("parent"):
        as_reference = drawn_latents(aligned)
    assert torch.equal(as_reference, drawn_latents(aligned))


def test_a_new_adapter_is_drawn_from_its_seed_on_the_cpu_and_leaves_every_generator_alone(model, monkeypatch):
    # Torch warns where it is to keep the state of several GPUs.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU was seeded"))
    before = torch.get_rng_state()
    first, other = (policy_of(model) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for policy in (first, other):
            policy.add_trainable(Lora(rank=2), noise_seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    for one, two in zip(first.parameters().values(), other.parameters().values(), strict=True):
        assert torch.equal(one, two)


def test_an_adapter_is_folded_into_the_weights_to_draw_and_leaves_them_to_the_bit(model, trained):
    policy = policy_of(model, trained.path / "adapter")
    denoiser = policy.backbone.denoiser
    latents, told = torch.randn(2, 4, 8, 8), policy.backbone.encode_prompts(["a red fox"] * 2)

    def kept() -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}

    for strength in (1.0, 0.5):
        policy.play("policy", strength=strength)
        before = kept()
        with torch.no_grad():
            plain = policy.backbone.predict(latents, torch.tensor([10, 900]), told)
            with policy.folded():
                moved = any(not torch.equal(before[name], own) for name, own in kept().items())
                folded = policy.backbone.predict(latents, torch.tensor([10, 900]), told)
            again = policy.backbone.predict(latents, torch.tensor([10, 900]), told)
        assert moved and torch.allclose(folded, plain, atol=1e-5)
        assert torch.equal(again, plain)
        assert all(torch.equal(before[name], own) for name, own in kept().items())


def test_what_fails_while_an_adapter_is_folded_in_leaves_the_weights_as_well(model, trained):
    policy = policy_of(model, trained.path / "adapter")
    before = [tensor.clone() for tensor in policy.backbone.denoiser.state_dict().values()]
    with pytest.raises(RuntimeError, match="no"), policy.folded():
        raise RuntimeError("no")
    assert all(map(torch.equal, before, policy.backbone.denoiser.state_dict().values()))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_where_there_is_no_memory_for_folding_the_adapter_works_beside_the_weights(
    model, trained, monkeypatch, error
):
    policy = policy_of(model, trained.path / "adapter")
    latents, told = torch.randn(2, 4, 8, 8), policy.backbone.encode_prompts(["a red fox"] * 2)
    asked = []

    def full(self, adapter):
        asked.append(adapter)
        raise error

    monkeypatch.setattr("peft.tuners.lora.layer.Linear.get_delta_weight", full)
    with torch.no_grad():
        plain = policy.backbone.predict(latents, torch.tensor([10, 900]), told)
        for _ in range(2):
            with policy.folded():
                assert torch.equal(policy.backbone.predict(latents, torch.tensor([10, 900]), told), plain)
    assert len(asked) == 1, "once is enough to know"


def test_nothing_is_folded_into_bfloat16_or_into_base(model, trained):
    reduced = policy_of(model.model_copy(update={"precision": "bfloat16"}), trained.path / "adapter")
    base = policy_of(model, trained.path / "adapter")
    base.play("base")
    for policy in (reduced, base):
        before = [tensor.clone() for tensor in policy.backbone.denoiser.state_dict().values()]
        with policy.folded():
            assert all(map(torch.equal, before, policy.backbone.denoiser.state_dict().values()))


def test_only_the_policy_adapter_takes_gradients(model, trained):
    policy = policy_of(model, trained.path / "adapter")
    policy.load("parent", trained.path / "adapter")
    with policy.acting_as("parent"):
        pass
    trainable = [name for name, p in policy.backbone.denoiser.named_parameters() if p.requires_grad]
    assert trainable == list(policy.parameters())
    assert all(".policy." in name for name in trainable)


def test_an_adapter_with_a_value_that_is_not_finite_is_refused(model, trained, tmp_path):
    weights = load_file(trained.path / "adapter" / ADAPTER_FILE)
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, tmp_path / ADAPTER_FILE)
    with pytest.raises(ValueError, match="not finite"):
        policy_of(model, tmp_path)


def test_an_adapter_of_another_model_or_tool_is_refused_in_a_sentence(model, trained, tmp_path):
    weights = load_file(trained.path / "adapter" / ADAPTER_FILE)
    wider = {name: torch.cat([tensor, tensor], 1) for name, tensor in weights.items()}
    save_file(wider, tmp_path / ADAPTER_FILE)
    with pytest.raises(ValueError, match="does not fit this model: size mismatch for"):
        policy_of(model, tmp_path)
    renamed = {name.replace("lora_A", "lora.down"): tensor for name, tensor in weights.items()}
    save_file(
        {name: tensor for name, tensor in renamed.items() if "lora_" not in name}, tmp_path / ADAPTER_FILE
    )
    with pytest.raises(ValueError, match="is no LoRA as diffusers"):
        policy_of(model, tmp_path)


def test_what_an_adapter_that_went_too_far_draws_is_never_shown_to_anybody(model, trained, tmp_path):
    weights = {
        name: 1e30 * tensor for name, tensor in load_file(trained.path / "adapter" / ADAPTER_FILE).items()
    }
    save_file(weights, tmp_path / ADAPTER_FILE)
    sha256 = sha256_file(tmp_path / ADAPTER_FILE)
    request = ProposeRequest(model=model, adapter=sha256, prompts=PROMPTS, num_candidates=2, sampling=QUICK)
    folder = RunFolder.create(tmp_path / "run", request, adapters={sha256: tmp_path})
    with pytest.raises(ValueError, match=f"drawn for '{PROMPTS[0]}' has values that are not finite"):
        execute(folder)
    assert not list(folder.path.rglob("*.png"))


def test_what_a_judge_measures_that_is_not_finite_is_no_reward_of_anybody(tmp_path):
    tensors = {"latents": torch.zeros(2, 4, 8, 8), "gains": torch.tensor([[0.1, 0.2], [float("nan"), 0.1]])}
    images = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"measured of the images of 'a fox' is not finite"):
        publish_candidates(tmp_path, 0, "a fox", tensors, images)
    assert not list(tmp_path.rglob("*.*"))


def test_an_adapter_with_a_scale_of_its_own_keeps_it_when_read_back(model, tmp_path):
    policy = policy_of(model)
    policy.add_trainable(Lora(rank=2, alpha=6), noise_seed=0)
    with torch.no_grad():
        for name, parameter in policy.parameters().items():
            if "lora_B" in name:
                parameter.normal_()
    policy.save(tmp_path / "adapter")
    again = policy_of(model, tmp_path / "adapter")
    assert torch.allclose(drawn_latents(again), drawn_latents(policy), atol=1e-5)


def test_a_target_that_is_no_module_is_refused_though_others_are(model):
    sentence = r"UNet2DConditionModel has no module to_qq or attention\. Is it one of .*to_q"
    with pytest.raises(ValueError, match=sentence):
        policy_of(model).add_trainable(Lora(targets=("to_qq", "to_v", "attention")), noise_seed=0)
    policy = policy_of(model)
    policy.add_trainable(Lora(targets=("to_v", "attn1.to_out.0")), noise_seed=0)
    adapted = {name.split(".lora_")[0].split("attn")[1] for name in policy.parameters()}
    assert adapted == {"1.to_v", "2.to_v", "1.to_out.0"}


# Comparing


@pytest.fixture(scope="session")
def compared(model, trained, tmp_path_factory) -> RunFolder:
    """Three prompts in five looks, two images each, two prompts a chunk."""
    sha256, folder = trained.result()["sha256"], tmp_path_factory.mktemp("compared") / "0002-compare"
    strengths = (0.0, 0.5, 1.0)
    looks = (Look(), *(Look(adapter=sha256, strength=strength) for strength in strengths), Look())
    request = CompareRequest(
        model=model,
        looks=looks,
        prompts=PROMPTS[:3],
        per_prompt=2,
        sampling=QUICK.model_copy(update={"chunk": 4}),
    )
    run = RunFolder.create(folder, request, adapters={sha256: trained.path / "adapter"})
    execute(run)
    return run


def compared_latents(folder: RunFolder) -> torch.Tensor:
    """Prompts, looks, images, C, H, W."""
    found = [load_file(folder.path / one.latents)["latents"] for one in folder.candidate_sets()]
    return torch.stack([latents.unflatten(0, (-1, 2)) for latents in found])


def test_strength_0_is_base_1_is_the_adapter_and_half_lies_between(model, trained, compared):
    base, none, half, whole, base_again = compared_latents(compared).unbind(1)
    assert torch.equal(none, base) and torch.equal(base_again, base)
    aligned = policy_of(model, trained.path / "adapter")
    plain = drawn_latents(aligned, PROMPTS[:3], sampling=QUICK.model_copy(update={"chunk": 4}))
    assert torch.equal(whole.flatten(0, 1), plain)
    assert 0.1 < (half - base).norm() / (whole - base).norm() < 0.9


def test_every_look_starts_from_the_same_noise(model, compared):
    latents = compared_latents(compared)
    alone = drawn_latents(policy_of(model), PROMPTS[1:2])
    assert torch.allclose(latents[1, 0], alone, atol=1e-5)
    apart = [(latents[:, look, 0] - latents[:, other, 1]).norm() for look, other in ((0, 0), (3, 3))]
    assert (latents[:, 0] - latents[:, 3]).norm() < min(apart)


def test_a_compare_run_that_was_stopped_keeps_what_is_done_and_ends_with_the_same_bits(compared, tmp_path):
    shutil.copytree(compared.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    for name in ("result.json", "candidates/00001.json", "candidates/00002.json", "candidates/00002-0.png"):
        (folder.path / name).unlink()

    class StopsAtOnce(RunFolder):
        def stop_if_asked(self) -> None:
            raise Stopped("Stopped on request.")

    kept = (folder.path / "candidates/00000.json").stat().st_mtime_ns
    with pytest.raises(Stopped):
        execute(StopsAtOnce(folder.path))
    assert [found.prompt_index for found in folder.candidate_sets()] == [0, 1]
    execute(folder)
    assert (folder.path / "candidates/00000.json").stat().st_mtime_ns == kept
    assert torch.equal(compared_latents(folder), compared_latents(compared))
    assert folder.snapshot().total == 15


# Training


def test_training_moves_every_lora_matrix(model, trained):
    weights = load_file(trained.path / "adapter" / ADAPTER_FILE)
    assert weights and all(tensor.abs().max() > 0 for tensor in weights.values())
    policy = policy_of(model)
    policy.add_trainable(Lora(rank=2), noise_seed=0)
    moved = [not torch.equal(tensor, weights[f"unet.{name}"]) for name, tensor in policy.weights().items()]
    assert all(moved)


def test_the_first_step_of_a_run_has_loss_log_2(trained):
    first = trained.metrics()[0]
    assert first["step"] == 1 and first["loss"] == pytest.approx(0.6931472, abs=1e-5)


def test_a_short_run_has_the_losses_it_always_had(trained):
    """Whoever changes these changes what everybody's adapters become."""
    losses = [line["loss"] for line in trained.metrics()]
    assert losses == pytest.approx([0.69315, 0.68434, 0.77637, 0.69724, 0.50538, 0.48330], abs=1e-3)


def test_a_short_mirrored_run_begins_at_log_2_and_has_the_losses_it_always_had(model, proposed, tmp_path):
    request, pairs = train_request(model, loss=MIRRORED), human_pairs(proposed)
    folder = RunFolder.create(tmp_path / "run", request, pairs=pairs)
    execute(folder)
    losses = [line["loss"] for line in folder.metrics()]
    assert losses == pytest.approx([0.69315, 0.68444, 0.77769, 0.69871, 0.51159, 0.49195], abs=1e-3)


def test_ties_that_are_held_keep_predictions_where_base_has_them(model, proposed, tmp_path):
    """What is liked of two prompts; the other two are tied."""
    liked = [pair for pair in human_pairs(proposed) if not pair.held_out][:2]
    tied = tied_pairs(proposed)[2:]
    moved, right = {}, {}
    for strength in (0.0, 10.0):
        request = holding_ties(train_request(model, steps=20), strength)
        folder = RunFolder.create(tmp_path / f"{strength}", request, pairs=[*liked, *tied])
        execute(folder)
        assert (folder.result()["human_pairs"], folder.result()["tie_pairs"]) == (2, 2)
        right[strength] = folder.metrics()[-1]["accuracy"]
        moved[strength] = moved_by(folder, tied)
    assert moved[10.0] < 0.5 * moved[0.0] and min(right.values()) > 0.5


def moved_by(folder: RunFolder, pairs: list[TrainingPair]) -> float:
    """Mean squared distance between the run's and base's predictions on the pairs' images."""
    backbone = backbones.load(folder.request().model)
    policy = Policy(backbone)
    policy.load("policy", folder.path / "adapter")
    latents = torch.cat([load_file(pair.winner.file)["latents"][[0, 1]] for pair in pairs])
    conditioning = backbone.encode_prompts([pair.prompt for pair in pairs for _ in (0, 1)])
    generator, total = torch.Generator().manual_seed(0), 0.0
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        at = torch.full((len(latents),), int(share * backbone.num_train_timesteps))
        timesteps = backbone.timesteps(at, tuple(latents.shape[1:]))
        noisy = backbone.noisy(latents, torch.randn(latents.shape, generator=generator), timesteps)
        said = []
        for part in ("policy", "base"):
            with policy.acting_as(part):
                said.append(backbone.predict(noisy, timesteps, conditioning))
        total += float((said[0] - said[1]).square().mean())
    return total


def test_training_on_pairs_makes_the_winner_the_likelier_one(model, proposed, tmp_path):
    folder = RunFolder.create(
        tmp_path / "run", train_request(model, steps=80, learning_rate=3e-3), pairs=human_pairs(proposed)
    )
    execute(folder)
    last = folder.metrics()[-20:]
    assert sum(line["accuracy"] for line in last) / 20 > 0.75
    assert sum(line["loss"] for line in last) / 20 < 0.5


def test_the_result_says_what_was_trained_and_measured(trained):
    result = trained.result()
    assert result["human_pairs"] == 3 and result["self_pairs"] == 0
    assert result["judge_accuracy"]["n"] == 1 and result["human_agreement"]["n"] == 3
    assert result["diversity_ratio"] > 0 and result["saturation_ratio"] > 0
    assert result["sha256"] == sha256_file(trained.path / "adapter" / ADAPTER_FILE)


def gated(model, proposed, path, **limits: float) -> RunFolder:
    request = train_request(model, learning_rate=5e-2)
    monitoring = request.monitoring.model_copy(update=limits)
    request = request.model_copy(update={"monitoring": monitoring})
    folder = RunFolder.create(path, request, pairs=human_pairs(proposed))
    execute(folder)
    return folder


@pytest.fixture(scope="module")
def whole_and_cut(model, proposed, tmp_path_factory) -> tuple[RunFolder, RunFolder]:
    """One training twice, the second time with a limit on saturation between what all of it does and what
    nothing does."""
    root = tmp_path_factory.mktemp("gated")
    whole = gated(model, proposed, root / "whole")
    ratio = whole.result()["saturation_ratio"]
    return whole, gated(model, proposed, root / "cut", max_saturation_ratio=max(ratio, 1 / ratio) ** 0.75)


def test_of_a_training_that_goes_too_far_the_largest_accepted_part_is_kept(model, whole_and_cut):
    whole, cut = whole_and_cut
    result, limit = cut.result(), cut.request().monitoring.max_saturation_ratio
    assert result["accepted"] and not result["reasons"]
    assert result["kept"] in {0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875}
    assert 1 / limit <= result["saturation_ratio"] <= limit
    assert "times as saturated" in result["cut_because"][0]
    before = policy_of(model)
    before.add_trainable(cut.request().lora, noise_seed=cut.request().optimisation.noise_seed)
    begun, ended = before.weights(), policy_of(model, whole.path / "adapter").weights()
    for name, tensor in policy_of(model, cut.path / "adapter").weights().items():
        assert torch.allclose(tensor, torch.lerp(begun[name], ended[name], result["kept"]), atol=1e-7), name
    images = [(run.path / "samples/step-00006/0.png").read_bytes() for run in (whole, cut)]
    assert images[0] != images[1]
    assert [pair.margin for pair in whole.judged_pairs()] != [pair.margin for pair in cut.judged_pairs()]


def test_a_run_that_is_stopped_while_a_part_is_looked_for_ends_as_if_it_had_not_been(
    whole_and_cut, proposed, tmp_path
):
    _, cut = whole_and_cut
    again = RunFolder.create(tmp_path / "again", cut.request(), pairs=human_pairs(proposed))

    class StopsAtTheThirdLook(RunFolder):
        looks = 0

        def stop_if_asked(self) -> None:
            snapshot = self.snapshot()
            if snapshot.stage == "draw held-out prompts (policy)":
                self.looks += 1
                if self.looks == 3:
                    raise Stopped("Stopped on request.")

    with pytest.raises(Stopped):
        execute(StopsAtTheThirdLook(again.path))
    assert execute(again)["sha256"] == cut.result()["sha256"]


def test_a_training_of_which_the_gate_accepts_no_part_stays_as_it_is(model, proposed, tmp_path):
    whole = gated(model, proposed, tmp_path / "whole", halvings=0).result()
    refused = gated(model, proposed, tmp_path / "refused", max_saturation_ratio=1).result()
    assert whole["accepted"] and not refused["accepted"]
    assert refused["reasons"] and not refused["cut_because"]
    assert (refused["kept"], refused["sha256"]) == (1, whole["sha256"])


def test_the_judge_says_what_it_makes_of_every_human_pair(trained):
    judged, result = trained.judged_pairs(), trained.result()
    assert [pair.id for pair in judged] == [pair.id for pair in trained.pairs()]
    assert [pair.held_out for pair in judged] == [pair.held_out for pair in trained.pairs()]
    learned = [pair.margin > 0 for pair in judged if not pair.held_out]
    assert result["human_agreement"]["value"] == pytest.approx(sum(learned) / len(learned))
    assert all(pair.margin_error > 0 for pair in judged)


def test_the_judge_is_asked_about_open_pairs_and_the_adapter_stays_the_same(
    model, proposed, trained, tmp_path
):
    both = human_pairs(proposed)
    unjudged = [
        pair.model_copy(update={"id": f"open-{pair.id}", "source": "open", "held_out": False})
        for pair in both
    ]
    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=[*both, *unjudged])
    result = execute(folder)
    judged = folder.judged_open()
    assert [pair.id for pair in judged] == [pair.id for pair in unjudged]
    assert all(pair.held_out and pair.margin_error > 0 for pair in judged)
    assert (result["sha256"], result["human_pairs"]) == (trained.result()["sha256"], 3)
    assert folder.judged_pairs() == trained.judged_pairs()


def test_previews_show_before_and_after_on_one_noise_seed(trained):
    steps = sorted(folder.name for folder in (trained.path / "samples").glob("step-*"))
    assert steps == ["step-00000", "step-00002", "step-00004", "step-00006"]
    assert json.loads((trained.path / "samples/prompts.json").read_text()) == ["a fox"]


def test_a_preview_that_a_kill_came_before_is_drawn_by_a_resume(trained, tmp_path):
    folder = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    (folder.path / "result.json").unlink()
    preview = folder.path / "samples/step-00006/0.png"
    before = preview.read_bytes()
    preview.unlink()
    execute(folder)
    assert preview.read_bytes() == before


def test_a_run_stopped_and_resumed_ends_with_the_same_adapter_bytes(model, proposed, trained, tmp_path):
    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=human_pairs(proposed))
    progress_seen = []
    for _ in range(10):
        try:
            # A stop is asked for after every start: each start gets one step further.
            stop_at_first_step(folder)
            break
        except Stopped:
            progress_seen.append(len(folder.metrics()))
    assert progress_seen == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in folder.metrics()] == [1, 2, 3, 4, 5, 6]
    execute(folder)
    assert folder.result()["sha256"] == trained.result()["sha256"]
    assert names_below(folder, "samples") == names_below(trained, "samples")


def names_below(folder: RunFolder, name: str) -> list[str]:
    return sorted(str(path.relative_to(folder.path)) for path in (folder.path / name).rglob("*"))


def test_metrics_are_on_disk_before_the_checkpoint_after_them_is(model, proposed, tmp_path, disk):
    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=human_pairs(proposed))
    disk.watched = folder.path / "metrics.jsonl"
    execute(folder)
    at_checkpoints = [were_there for name, were_there in disk.renamed if name == "state.pt"]
    assert at_checkpoints == [True, True, True]


def test_a_run_whose_metrics_are_gone_after_its_last_step_ends_without_gains(trained, tmp_path):
    folder = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    for name in ("result.json", "metrics.jsonl"):
        (folder.path / name).unlink()
    result = execute(folder)
    assert result["sha256"] == trained.result()["sha256"]
    read = Round.from_result(result, number=0, parent=None, adapter="adapter")
    assert (read.winner_gain, read.loser_gain) == (None, None)


def test_base_is_drawn_before_it_is_trained_and_no_more_after_a_stop(
    model, proposed, trained, tmp_path, monkeypatch
):
    drawn = []

    def appearance_of(policy, part, *rest):
        drawn.append((part, len(folder.metrics())))
        return plain(policy, part, *rest)

    plain = monitors.appearance_of
    monkeypatch.setattr(monitors, "appearance_of", appearance_of)
    folder = RunFolder.create(tmp_path / "run", trained.request(), pairs=human_pairs(proposed))
    with pytest.raises(Stopped):
        stop_at_first_step(folder)
    execute(folder)
    assert drawn == [("base", 0), ("policy", 6)]
    for name in ("sha256", "diversity_ratio", "saturation_ratio"):
        assert folder.result()[name] == trained.result()[name]


def test_what_a_launcher_says_of_precision_and_accumulation_changes_no_step(
    model, proposed, trained, tmp_path, monkeypatch
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8")
    folder = RunFolder.create(tmp_path / "run", trained.request(), pairs=human_pairs(proposed))
    execute(folder)
    for ours, theirs in zip(folder.metrics(), trained.metrics(), strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    assert folder.result()["sha256"] == trained.result()["sha256"]


def test_a_stop_is_heard_while_a_round_is_measured(model, proposed, trained, tmp_path):
    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=human_pairs(proposed))

    class StopsWhenTrained(RunFolder):
        def stop_if_asked(self) -> None:
            if self.snapshot().stage == "draw held-out prompts (policy)":
                raise Stopped("Stopped on request.")

    with pytest.raises(Stopped):
        execute(StopsWhenTrained(folder.path))
    assert folder.result() is None
    execute(folder)
    assert folder.result()["sha256"] == trained.result()["sha256"]


def stop_at_first_step(folder: RunFolder) -> None:
    class StopsAtOnce(RunFolder):
        def append_metric(self, **values):
            super().append_metric(**values)
            self.request_stop()

    execute(StopsAtOnce(folder.path))


def test_where_not_even_the_failure_can_be_written_the_error_itself_is_heard(model, proposed, tmp_path):
    class OnAFullDisk(RunFolder):
        def append_metric(self, **values):
            self.request_stop()
            raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

        def publish_snapshot(self, snapshot):
            if snapshot.state == "failed":
                raise OSError(errno.ENOSPC, "No space left on device", "progress.json")

    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=human_pairs(proposed))
    with pytest.raises(OSError, match="metrics"):
        execute(OnAFullDisk(folder.path))
    # Whoever makes room and starts it again does not ask it to stop.
    assert execute(folder)["steps"] == 6


def test_a_stop_that_was_asked_for_while_the_run_still_loads_is_obeyed_and_used_up(model, proposed, tmp_path):
    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=human_pairs(proposed))
    folder.request_stop()
    with pytest.raises(Stopped):
        execute(folder)
    assert folder.result() is None and len(folder.metrics()) < 6
    assert execute(folder)["steps"] == 6


def test_a_run_folder_and_its_model_are_all_that_another_machine_needs(model, proposed, trained, tmp_path):
    here = tmp_path / "here"
    shutil.copytree(proposed.path, here / "propose")
    shutil.copytree(model.source, here / "model")
    own = ModelRef(source=str(here / "model"))
    pairs = human_pairs(RunFolder(here / "propose"))
    folder = RunFolder.create(here / "train", train_request(own), pairs=pairs)
    shutil.copytree(folder.path, tmp_path / "there" / "train")
    shutil.copytree(here / "model", tmp_path / "there" / "model")
    shutil.rmtree(here)
    there = RunFolder(tmp_path / "there" / "train")
    request = there.path / "request.json"
    request.write_text(request.read_text().replace(str(here / "model"), str(tmp_path / "there" / "model")))
    assert execute(there)["sha256"] == trained.result()["sha256"]


@pytest.mark.slow
def test_a_trainer_killed_in_the_middle_ends_with_the_same_adapter_bytes(model, proposed, tmp_path):
    request = train_request(model, steps=40)
    whole = RunFolder.create(tmp_path / "whole", request, pairs=human_pairs(proposed))
    killed = RunFolder.create(tmp_path / "killed", request, pairs=human_pairs(proposed))
    process = subprocess.Popen([sys.executable, "-m", "sail", "train", str(killed.path)])
    while len(killed.metrics()) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert killed.snapshot().state == "interrupted" and killed.result() is None
    assert execute(killed)["sha256"] == execute(whole)["sha256"]
    assert [line["step"] for line in killed.metrics()] == list(range(1, 41))


def test_a_second_round_starts_from_its_parent_and_measures_gain_against_it(
    model, proposed, trained, tmp_path
):
    sha256 = trained.result()["sha256"]
    folder = RunFolder.create(
        tmp_path / "run",
        train_request(model, round=1, parent_adapter=sha256),
        pairs=human_pairs(proposed),
        adapters={sha256: trained.path / "adapter"},
    )
    execute(folder)
    first = folder.metrics()[0]
    # Policy and reference are the same adapter before the first step.
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert folder.result()["sha256"] != sha256


@pytest.mark.parametrize("reference", ["parent", "base"])
def test_a_mirrored_round_measures_its_steps_from_its_reference(
    model, proposed, trained, tmp_path, reference
):
    sha256 = trained.result()["sha256"]
    folder = RunFolder.create(
        tmp_path / "run",
        train_request(model, steps=1, round=1, parent_adapter=sha256, reference=reference, loss=MIRRORED),
        pairs=human_pairs(proposed),
        adapters={sha256: trained.path / "adapter"},
    )
    execute(folder)
    begins_level = folder.metrics()[0]["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert begins_level == (reference == "parent")


def test_a_loss_that_is_not_finite_stops_the_run_with_a_reason(model, proposed, tmp_path):
    request = train_request(model, learning_rate=1, steps=20)
    request = request.model_copy(update={"lora": Lora(rank=2, alpha=2**16)})
    folder = RunFolder.create(tmp_path / "run", request, pairs=human_pairs(proposed))
    with pytest.raises(ValueError, match="lower learning rate"):
        execute(folder)
    assert folder.snapshot().state == "failed" and "learning rate" in folder.snapshot().message
    assert not (folder.path / "adapter").exists()


# Judging


def test_a_policy_ranks_its_own_candidates_and_says_how_sure_it_is(judged):
    pairs = judged.self_pairs()
    assert judged.result()["self_pairs"] == len(pairs) == len(PROMPTS)
    assert all(pair.margin > 0 and pair.margin_error > 0 for pair in pairs)
    assert [pair.margin for pair in pairs] == sorted((pair.margin for pair in pairs), reverse=True)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_candidates_are_drawn_with_as_much_of_the_policy_as_asked(model, trained, tmp_path, strength):
    adapter = trained.path / "adapter"
    sha256 = sha256_file(adapter / ADAPTER_FILE)
    request = ProposeRequest(
        model=model,
        adapter=sha256,
        prompts=PROMPTS,
        num_candidates=3,
        sampling=QUICK,
        scoring=Scoring(draws=3),
        draw_strength=strength,
    )
    folder = RunFolder.create(tmp_path / "0002-propose", request, adapters={sha256: adapter})
    execute(folder)

    found = [load_file(folder.path / one.latents) for one in folder.candidate_sets()]
    own = torch.cat([tensors["latents"] for tensors in found])
    drawn_with = policy_of(model, adapter if strength > 0 else None)
    drawn_with.play("policy", strength=strength)
    assert torch.equal(own, drawn_latents(drawn_with, per_prompt=3))
    # Whatever draws, it is the policy at full strength that judges.
    assert all(tensors["gains"].abs().min() > 0 for tensors in found)


def test_a_run_is_interrupted_where_what_other_processes_drew_does_not_appear(judged, tmp_path, monkeypatch):
    folder = RunFolder(shutil.copytree(judged.path, tmp_path / "run"))
    (folder.path / "result.json").unlink()
    every, waited = RunFolder.finished_prompts, []
    monkeypatch.setattr("sail.candidates.PATIENCE_S", 3)
    monkeypatch.setattr("sail.candidates.time.sleep", waited.append)
    monkeypatch.setattr(RunFolder, "finished_prompts", lambda self: every(self) - {3})
    with pytest.raises(Lost, match="holds candidates of 3 prompts, and 4 were drawn"):
        execute(folder)
    assert len(waited) == 3 and folder.snapshot().state == "interrupted" and folder.result() is None
    # Seen a little later, they are waited for.
    late = {3}
    monkeypatch.setattr(
        RunFolder, "finished_prompts", lambda self: every(self) - (late if len(waited) < 5 else set())
    )
    assert execute(folder)["self_pairs"] == judged.result()["self_pairs"] and len(waited) == 5


def test_a_policy_without_an_adapter_cannot_judge(model):
    with pytest.raises(ValueError, match="against itself"):
        ProposeRequest(model=model, prompts=PROMPTS, scoring=Scoring())


# Cost


def images_predicted(monkeypatch, folder: RunFolder) -> int:
    """How many images the denoiser sees while the run is done."""
    seen = []
    plain = StableDiffusion.predict

    def counted(self, noisy_BCHW, timesteps_B, conditioning):
        seen.append(len(noisy_BCHW))
        return plain(self, noisy_BCHW, timesteps_B, conditioning)

    monkeypatch.setattr(StableDiffusion, "predict", counted)
    execute(folder)
    return sum(seen)


def test_the_cost_of_a_propose_run_is_what_the_denoiser_is_asked(judged, trained, tmp_path, monkeypatch):
    request, adapters = judged.request(), {trained.result()["sha256"]: trained.path / "adapter"}
    folder = RunFolder.create(tmp_path / "run", request, adapters=adapters)
    assert images_predicted(monkeypatch, folder) == cost.evaluations_to_propose(request)


def test_the_cost_of_a_train_run_is_what_the_denoiser_is_asked(model, proposed, tmp_path, monkeypatch):
    request, pairs = train_request(model, steps=3), human_pairs(proposed)
    folder = RunFolder.create(tmp_path / "run", request, pairs=pairs)
    # What is seen are forward passes alone.
    monkeypatch.setattr(cost, "FORWARD_AND_BACKWARD", 1)
    assert images_predicted(monkeypatch, folder) == cost.evaluations_to_train(
        request, judged_pairs=len(pairs), human_pairs=3, self_pairs=0
    )


def test_ties_that_are_held_cost_what_the_denoiser_is_asked(model, proposed, tmp_path, monkeypatch):
    request, pairs = holding_ties(train_request(model, steps=3), 0.5), human_pairs(proposed)
    folder = RunFolder.create(tmp_path / "run", request, pairs=[*pairs, *tied_pairs(proposed)])
    monkeypatch.setattr(cost, "FORWARD_AND_BACKWARD", 1)
    counts = {"judged_pairs": len(pairs), "human_pairs": 3, "self_pairs": 0}
    expected = cost.evaluations_to_train(request, **counts, tie_pairs=4)
    assert images_predicted(monkeypatch, folder) == expected
    # One tie beside four pairs, two images of it, as base and as policy.
    assert expected - cost.evaluations_to_train(request, **counts) == 3 * 1 * 2 * 2


def test_the_cost_of_a_train_run_on_the_judges_draws_leaves_out_what_the_judge_knows(
    model, proposed, judged, trained, tmp_path, monkeypatch
):
    request = on_judged_draws(train_request(model, steps=5), empty_prompt_share=0.0)
    pairs = [*human_pairs(proposed), *self_pairs(judged)]
    folder = RunFolder.create(tmp_path / "run", request, pairs=pairs)
    monkeypatch.setattr(cost, "FORWARD_AND_BACKWARD", 1)
    counts = {"human_pairs": 3, "self_pairs": len(PROMPTS)}
    expected = cost.evaluations_to_train(request, judged_pairs=4, **counts)
    # 20 pairs are drawn, half of them self pairs.
    assert cost.reference_pairs(request, **counts) == 10
    assert images_predicted(monkeypatch, folder) == expected


def test_a_mirrored_round_asks_the_reference_about_every_pair_whatever_the_judge_knows(
    model, proposed, judged, trained, tmp_path, monkeypatch
):
    request = on_judged_draws(train_request(model, steps=3, loss=MIRRORED), empty_prompt_share=0.0)
    folder = RunFolder.create(tmp_path / "run", request, pairs=[*human_pairs(proposed), *self_pairs(judged)])
    monkeypatch.setattr(cost, "FORWARD_AND_BACKWARD", 1)
    counts = {"human_pairs": 3, "self_pairs": len(PROMPTS)}
    assert cost.reference_pairs(request, **counts) == 12
    assert images_predicted(monkeypatch, folder) == cost.evaluations_to_train(
        request, judged_pairs=4, **counts
    )


# Monitors


def test_diversity_is_zero_for_equal_images_and_saturation_zero_for_grey_ones():
    grey = torch.full((2, 8, 8, 3), 128, dtype=torch.uint8)
    assert appearance([grey]).diversity == 0 and appearance([grey]).saturation == 0
    red, black = torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    red[..., 0] = 255
    both = appearance([torch.cat([red, black])])
    assert both.diversity == pytest.approx((1 / 3) ** 0.5) and both.saturation == pytest.approx(0.5)


def test_an_evaluate_run_measures_what_the_train_run_of_its_adapter_measured(
    trained, proposed, tmp_path, monkeypatch
):
    monkeypatch.setattr("sail.batches._encode", lambda *_: pytest.fail("a step alone needs all prompts"))
    asked, told = trained.request(), trained.result()
    request = EvaluateRequest(
        model=asked.model,
        adapter=told["sha256"],
        beta=asked.loss.beta,
        scoring=asked.scoring,
        sampling=asked.sampling,
        monitoring=asked.monitoring,
    )
    pairs = human_pairs(proposed)
    unjudged = pairs[0].model_copy(update={"id": "open", "prompt": "a cow", "source": "open"})
    folder = RunFolder.create(
        tmp_path / "evaluate",
        request,
        pairs=[*pairs, unjudged],
        adapters={told["sha256"]: trained.path / "adapter"},
    )
    assert sail("evaluate", folder.path).exit_code == 0
    measured = folder.result()
    for name in ("judge_accuracy", "human_agreement", "accepted", "reasons"):
        assert measured[name] == told[name]
    for name in ("human_margin", "diversity_ratio", "saturation_ratio"):
        assert measured[name] == pytest.approx(told[name])
    assert measured["judge_accuracy"]["n"] == 1 and measured["diversity_ratio"] != 1
    before, again = ([pair.margin for pair in run.judged_pairs()] for run in (trained, folder))
    assert again == pytest.approx(before)
    subject = subject_of(folder.path)
    assert sha256_file(subject.adapter / ADAPTER_FILE) == told["sha256"]
    assert subject.prompts == asked.monitoring.prompts
    assert subject.trained_on == {pair.prompt for pair in pairs if not pair.held_out}


# Export


def test_what_a_killed_export_left_is_not_shipped(model, trained, tmp_path):
    sha256 = trained.result()["sha256"]
    folder = RunFolder.create(
        tmp_path / "run",
        ExportRequest(model=model, adapter=sha256),
        adapters={sha256: trained.path / "adapter"},
    )
    for left in (f".{FOR_TOOLS}.7.new", "lora/.half.7.new", ".merged.new/unet/half.safetensors"):
        (folder.path / "export" / left).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / "export" / left).write_bytes(b"half")
    state = folder.path / "checkpoint" / ".state.pt.7.new"
    state.parent.mkdir()
    state.write_bytes(b"half")
    listed = {file["path"] for file in execute(folder)["files"]}
    assert not state.exists()
    assert listed == {f"export/{name}" for name in ("README.md", FOR_TOOLS, f"lora/{ADAPTER_FILE}")}


def test_an_exported_lora_changes_a_plain_pipelines_picture_and_merging_it_does_the_same(
    model, trained, tmp_path
):
    sha256 = trained.result()["sha256"]
    request = ExportRequest(
        model=model, adapter=sha256, merged=True, facts={"human pairs": 3, "gate | x": None}
    )
    folder = RunFolder.create(tmp_path / "run", request, adapters={sha256: trained.path / "adapter"})
    listed = {file["path"] for file in execute(folder)["files"]}
    assert {"export/README.md", f"export/lora/{ADAPTER_FILE}"} <= listed
    out = folder.path / "export"

    def picture(source: Path | str, lora: Path | None) -> torch.Tensor:
        pipeline = StableDiffusionPipeline.from_pretrained(source, safety_checker=None)
        pipeline.set_progress_bar_config(disable=True)
        if lora:
            pipeline.load_lora_weights(lora)
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        return pipeline("a red fox", num_inference_steps=3, latents=noise, output_type="latent").images

    plain, aligned = picture(model.source, None), picture(model.source, out / "lora")
    assert not torch.allclose(plain, aligned, atol=1e-3)
    assert torch.allclose(picture(out / "merged", None), aligned, atol=1e-3)
    card = (out / "README.md").read_text()
    assert sha256 in card and "| human pairs | 3 |" in card and "not measured" in card


def test_latents_that_were_cut_short_or_altered_are_refused_by_name(model, tmp_path):
    file = tmp_path / "given.safetensors"
    save_file({"latents": torch.zeros(2, 4, 8, 8)}, file)
    ref = [LatentsRef(file=str(file), row=row) for row in (0, 1)]
    pairs = [TrainingPair(id="x", prompt="a fox", winner=ref[0], loser=ref[1], source="human")]
    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=pairs)
    (own,) = (folder.path / "inputs" / "latents").iterdir()
    own.unlink()
    save_file({"latents": torch.ones(2, 4, 8, 8)}, own)
    with pytest.raises(ValueError, match=rf"{own.name} is broken: it was altered"):
        execute(folder)
    # Cut short where it came from: before anything begins.
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"given\.safetensors is broken"):
        RunFolder.create(tmp_path / "other", train_request(model), pairs=pairs)


def test_a_broken_latents_file_is_refused_by_name(model, proposed, tmp_path):
    file = tmp_path / "broken.safetensors"
    save_file({"latents": torch.full((2, 4, 8, 8), float("inf"))}, file)
    ref = [LatentsRef(file=str(file), row=row) for row in (0, 1)]
    pairs = [TrainingPair(id="x", prompt="a fox", winner=ref[0], loser=ref[1], source="human")]
    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=pairs)
    (own,) = (folder.path / "inputs" / "latents").iterdir()
    with pytest.raises(ValueError, match=rf"{own.name} is broken: row 0 has values that are not finite"):
        execute(folder)
    shutil.rmtree(folder.path)
