"""What a training step computes, and what it does where memory runs out. Real diffusers at tiny size."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import engine
import pytest
import torch
from engine import PROMPTS, QUICK, drawn_latents, holding_ties, on_judged_draws, policy_of
from pairs import human_pairs, self_pairs, tied_pairs
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sail import cost
from sail.backbones.pipeline import PipelineBackbone
from sail.batches import Batch, Batches, load_pairs
from sail.candidates import decoded
from sail.config import Loss, Monitoring, Optimisation, Scoring
from sail.judged import judged_draws
from sail.loss import diffusion_dpo
from sail.memory import AtOnce, MemoryFit
from sail.model_ref import ModelRef
from sail.progress import Progress
from sail.records import TrainingPair
from sail.requests import ProposeRequest, TrainRequest
from sail.reward import bank_of, draw_errors, gains
from sail.runfolder import ADAPTER_FILE, RunFolder, Stopped
from sail.running import execute, one_sentence
from sail.training import Diverged, Trainer, _place_adapters


def train_request(model: ModelRef, **changes) -> TrainRequest:
    """As the engine's, with nothing drawn and no more checkpoints than one in the middle."""
    request = engine.train_request(model, **changes)
    return request.model_copy(update={"monitoring": Monitoring(), "checkpoint_every": 4})


@pytest.fixture
def new_run(model, proposed, trained, tmp_path) -> Callable[..., RunFolder]:
    names = iter(range(100))

    def make(request: TrainRequest | None = None, own: Sequence[TrainingPair] = ()) -> RunFolder:
        asked = request or train_request(model)
        pairs = [*human_pairs(proposed), *own]
        parent = {asked.parent_adapter: trained.path / "adapter"} if asked.parent_adapter else {}
        return RunFolder.create(tmp_path / f"run-{next(names)}", asked, pairs=pairs, adapters=parent)

    return make


@pytest.fixture(scope="module")
def trained_again(model, proposed, trained, tmp_path_factory) -> RunFolder:
    """A round that goes on from `trained`."""
    request = train_request(model, steps=3).model_copy(update={"parent_adapter": sha_of(trained)})
    adapters = {sha_of(trained): trained.path / "adapter"}
    path = tmp_path_factory.mktemp("again") / "run"
    folder = RunFolder.create(path, request, pairs=human_pairs(proposed), adapters=adapters)
    execute(folder)
    return folder


def sha_of(run: RunFolder) -> str:
    return run.result()["sha256"]


def losses(folder: RunFolder) -> list[float]:
    return [line["loss"] for line in folder.metrics()]


def trainer_of(folder: RunFolder) -> Trainer:
    request = folder.request()
    policy = policy_of(request.model)
    policy.add_trainable(request.lora, noise_seed=0)
    return Trainer(folder, request, policy, "base", load_pairs(folder, policy, request))


# Nothing twice


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a value of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.is_nonzero.default,
            torch.ops.aten.equal.default,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("draws", ["new", "judged"])
def test_a_step_never_waits_for_the_device_and_sees_no_pixels_and_no_text(
    new_run, model, judged, monkeypatch, draws
):
    request = on_judged_draws(train_request(model), self_pair_draws=draws)
    folder = new_run(request, self_pairs(judged))
    trainer = trainer_of(folder)
    trainer._optimise(Progress(folder))
    trainer._step = 1
    pipeline = trainer._policy.backbone._pipeline
    for module in (pipeline.vae, pipeline.text_encoder):
        monkeypatch.setattr(module, "forward", None)
        monkeypatch.setattr(type(module), "encode", None, raising=False)
    with Reads() as reads:
        values = trainer._optimise(Progress(folder))
    assert reads.count == 0
    with Reads() as reads:
        assert float(values[0]) > 0
    assert reads.count == 1, "what counts reads must see them"


def test_metrics_that_are_read_now_and_then_are_those_of_every_step(new_run, monkeypatch):
    at_once, later = new_run(), new_run()
    execute(at_once)
    build = Trainer.__init__

    def rarely(self, *arguments):
        build(self, *arguments)
        self._read_every = 4

    monkeypatch.setattr(Trainer, "__init__", rarely)
    execute(later)

    def told(folder: RunFolder) -> list[dict[str, object]]:
        return [{name: line[name] for name in line if name != "seconds"} for line in folder.metrics()]

    assert told(later) == told(at_once) and len(told(later)) == 6
    assert later.result()["sha256"] == at_once.result()["sha256"]


# The judge's draws


def reference_is_asked_about(monkeypatch, request: TrainRequest, new_run, judged) -> int:
    """Images, in all steps."""
    asked = []
    plain = Trainer._error

    def counted(self, asked_of):
        if not torch.is_grad_enabled():
            asked.append(len(asked_of.noisy_2P))
        return plain(self, asked_of)

    monkeypatch.setattr(Trainer, "_error", counted)
    execute(new_run(request, self_pairs(judged)))
    return sum(asked)


def test_a_self_pair_is_learned_from_on_the_draws_it_was_judged_on_each_as_often(new_run, model, judged):
    folder = new_run(on_judged_draws(train_request(model)), self_pairs(judged))
    policy = policy_of(model)
    data = load_pairs(folder, policy, folder.request())
    batches = Batches(data, policy.backbone, folder.request().optimisation, self_fraction=0.5)
    seen: dict[int, list[tuple[int, bytes]]] = {}
    for step in range(
        16
    ):  # 64 pairs, of which 32 are self pairs: each of the four draws of four pairs twice.
        batch = batches.at(step)
        for row, pair in enumerate(batches.pairs_at(step)):
            own = (int(batch.timesteps_2P[row]), batch.noise_2P[row].numpy().tobytes())
            seen.setdefault(pair, []).append(own)
    scoring, shape = judged.request().scoring, tuple(data.latents[0].shape[1:])
    for pair in data.sides["self"]:
        prompt = folder.pairs()[pair].prompt
        bank = bank_of(prompt, 1, shape, 1000, scoring)
        draws = zip(bank.timesteps_NK[0].tolist(), bank.noise_NKCHW[0], strict=True)
        known = {(timestep, noise.numpy().tobytes()) for timestep, noise in draws}
        assert set(seen[pair][:4]) == set(seen[pair][4:]) == known
    # The judge's are in the order of their timesteps.
    assert any(
        [timestep for timestep, _ in own[:4]] != sorted(t for t, _ in own[:4]) for own in seen.values()
    )
    of_people = [own for pair in data.sides["human"] for own in seen[pair]]
    assert len(set(of_people)) == len(of_people) == 32


@pytest.mark.parametrize("reference", ["base", "parent"])
def test_what_the_judge_knows_gives_the_losses_that_computing_it_gives(
    new_run, model, judged, trained, monkeypatch, reference
):
    request = on_judged_draws(
        train_request(model, steps=8, reference=reference, loss=Loss(beta=100)), empty_prompt_share=0.3
    )
    request = request.model_copy(update={"parent_adapter": trained.result()["sha256"]})
    known, computed = (new_run(request, self_pairs(judged)) for _ in range(2))
    assert len(load_pairs(known, policy_of(model), known.request()).known) == 4
    execute(known)
    every_row = property(lambda batch: torch.arange(2 * len(batch)), lambda batch, _: None)
    monkeypatch.setattr(Batch, "unknown_M", every_row, raising=False)
    execute(computed)
    assert losses(known) == pytest.approx(losses(computed), abs=1e-5)


@pytest.mark.parametrize("empty", [0.0, 1.0])
def test_the_reference_is_asked_about_human_pairs_and_empty_prompts_alone(
    new_run, model, judged, monkeypatch, empty
):
    request = on_judged_draws(train_request(model, steps=6), empty_prompt_share=empty)
    asked = reference_is_asked_about(monkeypatch, request, new_run, judged)
    # 24 pairs, half of them self pairs.
    assert asked == 2 * (12 if empty == 0 else 24)


def test_what_is_drawn_without_guidance_is_never_learned_without_its_prompt(
    new_run, model, judged, monkeypatch
):
    request = on_judged_draws(train_request(model, steps=6), empty_prompt_share=1.0)
    request = request.model_copy(update={"sampling": request.sampling.model_copy(update={"guidance": 1.0})})
    assert reference_is_asked_about(monkeypatch, request, new_run, judged) == 2 * 12
    told = {"human_pairs": 4, "self_pairs": 4}
    steps, pairs = request.optimisation.steps, request.optimisation.batch_pairs
    assert cost.reference_pairs(request, **told) < steps * pairs


@pytest.mark.parametrize(
    "otherwise",
    [
        {"optimisation": {"self_pair_draws": "new"}},
        {"optimisation": {"timesteps": (0.2, 1.0)}},
        {"scoring": {"shared": False}},
        {"model": {"precision": "bfloat16"}},
        {"parent_adapter": "of another round"},
    ],
)
def test_a_pair_that_was_judged_otherwise_is_learned_from_on_new_draws(new_run, model, judged, otherwise):
    folder = new_run(on_judged_draws(train_request(model)), self_pairs(judged))
    request = folder.request()
    for part, changes in otherwise.items():
        new = getattr(request, part).model_copy(update=changes) if isinstance(changes, dict) else changes
        request = request.model_copy(update={part: new})
    policy = policy_of(model)
    assert len(load_pairs(folder, policy, folder.request()).known) == 4
    assert not load_pairs(folder, policy, request).known


@pytest.mark.parametrize("trained_against", ["base", "parent"])
@pytest.mark.parametrize("judged_against", ["base", "parent", "another"])
def test_known_errors_are_those_of_the_reference_that_is_trained_against(
    new_run, model, trained, trained_again, tmp_path, trained_against, judged_against
):
    judge, parent, another = trained_again, trained, "b" * 64
    request = ProposeRequest(
        model=model,
        adapter=sha_of(judge),
        reference_adapter=sha_of(parent) if judged_against == "parent" else None,
        prompts=PROMPTS,
        num_candidates=2,
        sampling=QUICK,
        scoring=Scoring(draws=3),
    )
    adapters = {sha_of(run): run.path / "adapter" for run in (judge, parent)}
    proposed = RunFolder.create(tmp_path / "judged", request, adapters=adapters)
    execute(proposed)
    # The judge is the parent of what is trained now.
    train = on_judged_draws(train_request(model, reference=trained_against))
    train = train.model_copy(update={"parent_adapter": sha_of(judge)})
    if judged_against == "another":
        train = train.model_copy(update={"parent_adapter": another})
    policy = policy_of(model, judge.path / "adapter")
    pair = self_pairs(proposed)[0]
    found = judged_draws(proposed.path, pair, train, policy.backbone)
    if (judged_against, trained_against) in (("parent", "base"), ("another", "parent")):
        assert found is None
        return
    latents = torch.stack([load_file(ref.file)["latents"][ref.row] for ref in (pair.winner, pair.loser)])
    bank = bank_of(pair.prompt, 2, tuple(latents.shape[1:]), 1000, request.scoring)
    against = "policy" if trained_against == "parent" else "base"
    error_2K = draw_errors(policy, against, latents, policy.backbone.encode_prompts([pair.prompt]), bank)
    assert torch.allclose(torch.tensor(found.errors).T, error_2K, atol=1e-6)


def test_candidates_judged_on_other_draws_timesteps_or_precision_are_learned_from_on_new_ones(
    new_run, model, judged
):
    folder = new_run(on_judged_draws(train_request(model)), self_pairs(judged))
    policy = policy_of(model)
    pair = next(pair for pair in folder.pairs() if pair.source == "self")
    file = folder.path / pair.winner.file
    with safe_open(file, "pt") as opened:
        said = json.loads(opened.metadata()["judged"])
    tensors = load_file(file)
    for changes, is_known in (
        ({}, True),
        ({"scoring": {"bank_seed": 0}}, True),  # As it was written before.
        ({"scoring": {"shared": False}}, False),
        ({"scoring": {"timesteps": [0.2, 1.0]}}, False),
        ({"scoring": {"of a later version": 1}}, False),
        ({"computed_in": "bfloat16"}, False),
    ):
        told = {**said, **changes, "scoring": {**said["scoring"], **changes.get("scoring", {})}}
        file.unlink()
        save_file(tensors, file, {"judged": json.dumps(told)})
        assert (judged_draws(folder.path, pair, folder.request(), policy.backbone) is not None) == is_known


def test_candidates_that_an_earlier_version_judged_are_learned_from_on_new_draws(
    new_run, model, judged, tmp_path
):
    pairs = self_pairs(judged)
    earlier = {file: tmp_path / Path(file).name for pair in pairs for file in [pair.winner.file]}
    for file, own in earlier.items():
        tensors = load_file(file)
        save_file({name: tensors[name] for name in ("latents", "gains")}, own)

    def of_then(pair):
        sides = {name: getattr(pair, name) for name in ("winner", "loser")}
        return pair.model_copy(
            update={
                name: ref.model_copy(update={"file": str(earlier[ref.file])}) for name, ref in sides.items()
            }
        )

    folder = new_run(on_judged_draws(train_request(model)), [of_then(pair) for pair in pairs])
    assert not load_pairs(folder, policy_of(model), folder.request()).known


def test_a_run_on_the_judges_draws_stopped_at_every_step_ends_with_the_same_bytes(new_run, model, judged):
    request = on_judged_draws(train_request(model, steps=8))
    whole, stopped = (new_run(request, self_pairs(judged)) for _ in range(2))
    execute(whole)
    stop_at_every_step(stopped)
    assert stopped.result()["sha256"] == whole.result()["sha256"]
    assert losses(stopped) == losses(whole)


def stop_at_every_step(folder: RunFolder) -> None:
    class StopsAtOnce(RunFolder):
        def append_metric(self, **values):
            super().append_metric(**values)
            self.request_stop()

    for _ in range(20):
        try:
            execute(StopsAtOnce(folder.path))
            return
        except Stopped:
            continue
    raise AssertionError("The run never ended.")


# Memory


@pytest.fixture
def only_so_many(monkeypatch) -> Iterator[Callable[..., list[int]]]:
    """Have the denoiser run out of memory with more images than that, as a GPU does.

    Returns with how many it was asked since.
    """

    def limit(images: int, *, while_training: bool = True, said: RuntimeError | None = None) -> list[int]:
        plain, asked = PipelineBackbone.predict, list[int]()

        def predict(self, noisy_BCHW, timesteps_B, conditioning):
            asked.append(len(noisy_BCHW))
            if len(noisy_BCHW) > images and torch.is_grad_enabled() == while_training:
                raise said or torch.OutOfMemoryError(f"CUDA out of memory, {len(noisy_BCHW)} images")
            return plain(self, noisy_BCHW, timesteps_B, conditioning)

        monkeypatch.setattr(PipelineBackbone, "predict", predict)
        return asked

    yield limit


@pytest.mark.parametrize("objective", ["dpo", "mirrored"])
@pytest.mark.parametrize("draws", ["new", "judged"])
def test_where_memory_runs_out_the_step_goes_on_with_half_as_many_pairs_and_learns_the_same(
    new_run, model, judged, only_so_many, draws, objective
):
    loss = Loss(objective=objective, winner_pull=0.5)
    request = on_judged_draws(train_request(model, loss=loss), self_pair_draws=draws, micro_batch_pairs=None)
    free, short = (new_run(request, self_pairs(judged)) for _ in range(2))
    execute(free)
    # As a full card is said by torch, and by a library that finds no place for itself.
    handle = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    only_so_many(2, said=handle if draws == "new" else None)
    result = execute(short)
    assert short.events() == [
        {
            "event": "out_of_memory",
            "step": 1,
            "micro_batch_pairs": pairs,
            "activation_checkpointing": False,
        }
        for pairs in (2, 1)
    ]
    assert (result["micro_batch_pairs"], result["out_of_memory"]) == (1, 2)
    assert (free.result()["micro_batch_pairs"], free.result()["out_of_memory"]) == (4, 0)
    assert losses(short) == pytest.approx(losses(free), abs=1e-4)
    assert [line["step"] for line in short.metrics()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("draws", ["new", "judged"])
def test_a_run_whose_memory_ran_out_ends_with_the_same_bytes_when_begun_again(
    new_run, model, judged, monkeypatch, draws
):
    request = on_judged_draws(train_request(model), self_pair_draws=draws, micro_batch_pairs=None)
    whole, killed = (new_run(request, self_pairs(judged)) for _ in range(2))
    plain, calls = Trainer._backward, []

    def short_once(self, micro, weight):
        calls.append(len(micro))
        if self._step == 2 and len(micro) == 4 and not self._folder.events():
            plain(self, micro, weight)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, micro, weight)

    monkeypatch.setattr(Trainer, "_backward", short_once)
    execute(whole)
    stop_at_every_step(killed)
    assert [event["step"] for event in whole.events()] == [event["step"] for event in killed.events()] == [3]
    assert killed.result()["sha256"] == whole.result()["sha256"]


def test_with_one_pair_at_a_time_activations_are_computed_again_and_then_it_is_said(
    new_run,
    model,
    monkeypatch,
):
    free, tight, hopeless = new_run(), new_run(), new_run()
    execute(free)
    plain = PipelineBackbone.predict
    always = False

    def predict(self, noisy_BCHW, timesteps_B, conditioning):
        short = len(noisy_BCHW) > 2 or always or not self.denoiser.is_gradient_checkpointing
        if torch.is_grad_enabled() and short:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, noisy_BCHW, timesteps_B, conditioning)

    monkeypatch.setattr(PipelineBackbone, "predict", predict)
    result = execute(tight)
    assert (result["micro_batch_pairs"], result["activation_checkpointing"]) == (1, True)
    assert losses(tight) == pytest.approx(losses(free), abs=1e-4)
    always = True
    with pytest.raises(MemoryError, match="smaller model"):
        execute(hopeless)
    assert "smaller model" in hopeless.snapshot().message
    assert hopeless.result() is None


def test_a_gpu_begins_with_a_whole_step_and_a_cpu_with_sixteen_pairs(new_run):
    folder, config = new_run(), Optimisation(batch_pairs=128)
    assert MemoryFit(folder, config, on_gpu=True).at(1).micro_batch_pairs == 128
    assert MemoryFit(folder, config, on_gpu=False).at(1).micro_batch_pairs == 16
    asked = config.model_copy(update={"micro_batch_pairs": 5})
    assert MemoryFit(folder, asked, on_gpu=True).at(1).micro_batch_pairs == 5


@pytest.mark.parametrize("solver", ["dpm++", "ddpm"])  # The latter draws noise in every step.
def test_where_memory_runs_out_while_drawing_fewer_images_at_once_are_drawn_and_are_the_same(
    model, only_so_many, capsys, solver
):
    sampling = QUICK.model_copy(update={"solver": solver})
    free, short = policy_of(model), policy_of(model)
    whole = drawn_latents(free, sampling=sampling)
    asked = only_so_many(4, while_training=False)
    in_parts = drawn_latents(short, sampling=sampling)
    assert torch.allclose(in_parts, whole, atol=1e-4)
    # With the prompt and without. Nothing is tried twice, and once is enough for all chunks that follow.
    assert asked[0] == 12 and max(asked[1:]) == 6 and asked.count(6) == 1 and 2 in asked
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines == [
        "Memory ran out with 6 images to draw at once. It goes on with 3.",
        "Memory ran out with 3 images to draw at once. It goes on with 1.",
    ]


def test_a_run_that_is_begun_again_where_memory_ran_out_computes_as_many_at_once():
    def sizes(counts: Sequence[int]) -> list[int]:
        at_once, done = AtOnce(), []

        def compute(some: slice) -> Tensor:
            if some.stop - some.start > 6:
                raise torch.OutOfMemoryError("CUDA out of memory")
            done.append(some.stop - some.start)
            return torch.zeros(some.stop - some.start)

        for count in counts:
            assert len(at_once.cat("draw", 32, count, compute)) == count
        return done

    whole = sizes((30, 12))
    assert whole == [4] * 7 + [2] + [4] * 3
    assert whole == sizes((30,)) + sizes((12,))


def test_where_memory_runs_out_while_decoding_fewer_images_at_once_are_decoded(model, monkeypatch):
    policy, latents, asked = policy_of(model), torch.randn(5, 4, 8, 8), []
    whole, plain = decoded(policy, latents, 5), policy.backbone.decode

    def decode(latents_BCHW):
        asked.append(len(latents_BCHW))
        if len(latents_BCHW) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(latents_BCHW)

    monkeypatch.setattr(policy.backbone, "decode", decode)
    assert torch.equal(decoded(policy, latents, 5), whole)
    assert asked == [5, 2, 2, 1]


def test_where_memory_runs_out_while_judging_fewer_images_at_once_are_judged(model, only_so_many):
    policy, latents = policy_of(model), torch.randn(3, 4, 8, 8)
    at_once = gains(policy, "a red fox", latents, Scoring(draws=4), reference="base")
    asked = only_so_many(5, while_training=False)
    in_parts = gains(policy, "a red fox", latents, Scoring(draws=4), reference="base")
    assert torch.allclose(in_parts, at_once, atol=1e-5)
    assert asked == 2 * [12, 8, 4, 4, 4]


def test_a_round_on_little_memory_learns_and_measures_what_it_does_on_much(
    model, proposed, only_so_many, tmp_path
):
    request = engine.train_request(model)
    free, short = (
        RunFolder.create(tmp_path / name, request, pairs=human_pairs(proposed)) for name in ("free", "short")
    )
    execute(free)
    only_so_many(2, while_training=False)
    result = execute(short)
    whole = free.result()
    assert losses(short) == pytest.approx(losses(free), abs=1e-4)
    assert result["diversity_ratio"] == pytest.approx(whole["diversity_ratio"], abs=1e-2)
    assert [pair.margin for pair in short.judged_pairs()] == pytest.approx(
        [pair.margin for pair in free.judged_pairs()], abs=1e-3
    )


def test_where_not_one_image_fits_it_is_said_before_anything_is_learned(
    model, proposed, only_so_many, tmp_path
):
    request = engine.train_request(model)
    folder = RunFolder.create(tmp_path / "run", request, pairs=human_pairs(proposed))
    only_so_many(0, while_training=False)
    with pytest.raises(MemoryError, match=r"with one image to draw\. Take smaller images"):
        execute(folder)
    assert folder.snapshot().message.startswith("Memory ran out with one image")
    assert not folder.metrics() and not (folder.path / "checkpoint").exists()


@pytest.mark.parametrize(
    "said",
    [
        "GET was unable to find an engine to execute this computation",
        "CUDA error: out of memory\nCUDA kernel errors might be reported later",
        "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    ],
)
def test_a_card_that_is_full_is_known_by_what_libraries_say_and_that_is_told(said):
    def full(some: slice) -> Tensor:
        raise RuntimeError(said)

    with pytest.raises(MemoryError, match=re.escape(f"The device said: {said.splitlines()[0]}.")):
        AtOnce().cat("draw", 4, 4, full)


def test_prompts_are_encoded_of_those_pairs_alone_that_a_step_draws(new_run, model, proposed, monkeypatch):
    pairs = [
        pair.model_copy(update={"id": f"{pair.id}-{copy}", "prompt": f"{pair.prompt} {copy}"})
        for copy in range(12)
        for pair in human_pairs(proposed)
    ]
    folder = new_run(train_request(model, steps=2), pairs)
    policy, pairs = policy_of(model), folder.pairs()
    asked: list[str] = []
    encode = type(policy.backbone).encode_prompts

    def counted(backbone, prompts):
        asked.extend(prompts)
        return encode(backbone, prompts)

    monkeypatch.setattr(type(policy.backbone), "encode_prompts", counted)
    data = load_pairs(folder, policy, folder.request())
    batches = Batches(data, policy.backbone, folder.request().optimisation, self_fraction=0.5)
    drawn = {pair for step in range(2) for pair in batches.pairs_at(step)}
    assert len(drawn) == 8 < len(pairs)
    assert set(asked) == {pairs[pair].prompt for pair in drawn} | {""}
    for step in range(2):
        rows = [row for row in batches.at(step).prompt_rows if row != len(set(asked)) - 1]
        told = [asked[row] for row in rows]
        assert set(told) <= {pairs[pair].prompt for pair in batches.pairs_at(step)}


def test_an_error_of_memory_that_says_what_to_do_is_told_as_it_is(tmp_path: Path):
    assert one_sentence(MemoryError("Set x to 3.")) == "Set x to 3."
    assert "smaller" in one_sentence(MemoryError()) and "smaller" in one_sentence(torch.OutOfMemoryError("x"))


def test_memory_that_a_cpu_has_not_is_told_as_on_a_gpu():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert one_sentence(refused.value) == one_sentence(torch.OutOfMemoryError("x"))


@pytest.mark.parametrize("again", [False, True])
def test_a_folded_adapter_learns_what_layers_beside_the_weights_learn(model, trained, again):
    found: list[Tensor] = []
    policy = policy_of(model, trained.path / "adapter")
    policy.backbone.checkpoint_activations(again)
    seen = policy.backbone.encode_prompts(["a red fox"] * 2)
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in policy.backbone.denoiser.state_dict().items()}
    for fold in (nullcontext(), policy.folded(learning=True)):
        with fold:
            folded = [layer for layer in policy._layers if layer.merged]
            policy.backbone.predict(noisy, torch.tensor([10, 600]), seen).square().mean().backward()
        grads = [parameter.grad for parameter in policy.parameters().values()]
        found.append(torch.cat([gradient.flatten() for gradient in grads]))
        policy.backbone.denoiser.zero_grad()
    assert torch.allclose(*found, atol=1e-6) and found[0].abs().max() > 0
    assert folded, "nothing was folded"
    after = policy.backbone.denoiser.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert not any(layer.merged for layer in policy._layers)


def test_an_adapter_is_folded_once(model, trained):
    policy = policy_of(model, trained.path / "adapter")
    with policy.folded(), pytest.raises(AssertionError, match="already"), policy.folded():
        pass


def test_activations_computed_again_give_the_same_gradients(model):
    found: list[Tensor] = []
    for again in (False, True):
        policy = policy_of(model)
        policy.add_trainable(train_request(model).lora, noise_seed=0)
        policy.backbone.checkpoint_activations(again)
        seen = policy.backbone.encode_prompts(["a red fox"] * 2)
        noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        policy.backbone.predict(noisy, torch.tensor([10, 600]), seen).square().mean().backward()
        grads: list[nn.Parameter] = list(policy.parameters().values())
        found.append(torch.cat([parameter.grad.flatten() for parameter in grads]))
    assert torch.allclose(*found, atol=1e-6) and found[0].abs().max() > 0


# What losers teach


def safeguarded(request: TrainRequest, safeguard: bool, noise_seed: int = 0) -> TrainRequest:
    loss = request.loss.model_copy(update={"safeguard": safeguard})
    optimisation = request.optimisation.model_copy(update={"noise_seed": noise_seed, "micro_batch_pairs": 2})
    return request.model_copy(update={"loss": loss, "optimisation": optimisation})


def one_step(folder: RunFolder, *, alike: bool) -> tuple[float, list[Tensor]]:
    """What a small step along the gradient adds to winners' errors, as the loss weighs them; the gradient.

    `alike`: losers are the winners, twice as strong, so that to forget them is to forget the winners.
    """
    trainer = trainer_of(folder)
    _moved_a_little(trainer)
    for both in trainer._batches._data.latents if alike else ():
        both[1] = 2 * both[0]
    batch = trainer._batches.at(0)
    asked = trainer._asked(batch)
    with trainer._policy.acting_as("base"):
        reference_2P = trainer._error(asked)
    with torch.no_grad():
        error_2P = trainer._error(asked)
    slope_2P = error_2P.clone().requires_grad_()
    diffusion_dpo(slope_2P, reference_2P, folder.request().loss).loss_P.mean().backward()
    trainer._summed(trainer._gradients(batch, None, trainer.fit.at(1)))
    gradients = [parameter.grad for parameter in trainer._parameters.values()]
    length = sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5
    with torch.no_grad():
        for parameter, gradient in zip(trainer._parameters.values(), gradients, strict=True):
            parameter -= 1e-3 / length * gradient
        change_P = (trainer._error(asked) - error_2P).chunk(2)[0]
    return float((slope_2P.grad.chunk(2)[0] * change_P).sum()) / 1e-3, gradients


def _moved_a_little(trainer: Trainer) -> None:
    """An adapter that adds nothing has no gradient in half of its weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer._parameters.values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_the_safeguard_never_raises_the_winners_error_in_a_first_order_step(new_run, model):
    for seed in range(3):
        (plain, _), (safe, _) = (
            one_step(new_run(safeguarded(train_request(model), safeguard, seed)), alike=True)
            for safeguard in (False, True)
        )
        # What is left is of second order in the length of the step.
        assert plain > 0 and safe < 0.05 * plain


def test_where_winners_do_not_lose_the_safeguard_changes_nothing(new_run, model):
    (change, own), (_, safe) = (
        one_step(new_run(safeguarded(train_request(model), safeguard)), alike=False)
        for safeguard in (False, True)
    )
    assert change < 0
    for mine, theirs in zip(own, safe, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4 * float(mine.abs().max()))


def test_ties_that_are_held_are_nothing_that_winners_teach(new_run, model, proposed):
    def gradients(safeguard, hold):
        request = safeguarded(holding_ties(train_request(model), hold), safeguard)
        trainer = trainer_of(new_run(request, tied_pairs(proposed)))
        _moved_a_little(trainer)
        for both in trainer._batches._data.latents[:-1]:
            both[1] = 2 * both[0]
        ties = trainer._batches.ties_at(0) if hold else None
        trainer._summed(trainer._gradients(trainer._batches.at(0), ties, trainer.fit.at(1)))
        return torch.cat([parameter.grad.flatten() for parameter in trainer._parameters.values()])

    (plain, held), (safe, safe_held) = (
        [gradients(safe, hold) for hold in (0.0, 5.0)] for safe in (False, True)
    )
    assert not torch.allclose(plain, safe, rtol=0.1)
    assert torch.allclose(safe_held - safe, held - plain, rtol=1e-3, atol=1e-4 * float(held.abs().max()))


def test_ties_are_held_by_beta_2_times_the_mean_of_what_their_images_moved(new_run, model, proposed):
    request = holding_ties(train_request(model), 5.0)
    sizes = {"batch_pairs": 8, "micro_batch_pairs": 1}
    request = request.model_copy(update={"optimisation": request.optimisation.model_copy(update=sizes)})
    trainer = trainer_of(new_run(request, tied_pairs(proposed)))
    _moved_a_little(trainer)
    batch, ties = trainer._batches.at(0), trainer._batches.ties_at(0)
    assert len(ties) == 2, "one for each four pairs of a step"

    def gradients(ties):
        trainer._gradients(batch, ties, trainer.fit.at(1))
        return torch.cat([parameter.grad.flatten() for parameter in trainer._parameters.values()])

    added = gradients(ties) - gradients(None)
    trainer._optimiser.zero_grad()
    asked = trainer._asked(ties)
    with trainer._as_before("base"):
        before_2P = trainer._prediction(asked)
    moved_2P = (trainer._prediction(asked) - before_2P).square().mean((1, 2, 3))
    (5.0 * request.loss.beta / 2 * moved_2P.mean()).backward()
    wanted = torch.cat([parameter.grad.flatten() for parameter in trainer._parameters.values()])
    assert torch.allclose(added, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_a_gradient_that_is_not_finite_ends_the_run_at_its_step(new_run):
    trainer = trainer_of(new_run())
    trainer._step, trainer._since = 1, 0.0
    trainer._unread = [torch.tensor([0.7, 0.0, 0.1, 0.1, 0.5, torch.inf])]
    with pytest.raises(Diverged, match="The gradient is inf at step 1"):
        trainer._read()
    assert not trainer._folder.metrics()


@pytest.mark.parametrize("reference", ["base", "parent"])
def test_a_round_holds_ties_where_it_began(new_run, model, proposed, trained, reference):
    began = {"parent_adapter": sha_of(trained), "reference": reference}
    request = holding_ties(train_request(model), 5.0).model_copy(update=began)
    folder, policy = new_run(request, tied_pairs(proposed)), policy_of(model)
    compared_with = _place_adapters(folder, request, policy)
    trainer = Trainer(folder, request, policy, compared_with, load_pairs(folder, policy, request))

    def pull():
        trainer._optimiser.zero_grad()
        trainer._hold(trainer._batches.ties_at(0), 1.0)
        return float(torch.stack([own.grad.abs().max() for own in trainer._parameters.values()]).max())

    at_first = pull()
    _moved_a_little(trainer)
    assert compared_with == reference and at_first < 1e-4 * pull()


def test_a_safeguarded_run_ends_with_another_adapter_than_one_that_is_not(new_run, model):
    plain, safe = (new_run(safeguarded(train_request(model), safeguard)) for safeguard in (False, True))
    own, other = (load_file(Path(run.path, execute(run)["adapter"], ADAPTER_FILE)) for run in (plain, safe))
    assert all(torch.isfinite(tensor).all() for tensor in other.values())
    assert not all(torch.allclose(own[name], other[name], rtol=1e-3) for name in own)


def test_how_many_pairs_fit_at_a_step_is_the_least_that_ever_did_by_then(tmp_path, model):
    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=[])
    config = Optimisation(batch_pairs=16, micro_batch_pairs=16)
    for step, pairs in ((15, 8), (15, 4), (12, 8)):
        assert MemoryFit(folder, config, on_gpu=True).smaller(step).micro_batch_pairs == pairs
    fit = MemoryFit(folder, config, on_gpu=True)
    assert [fit.at(step).micro_batch_pairs for step in (11, 12, 15)] == [16, 8, 4]
    assert fit.told()["micro_batch_pairs"] == 4


def test_each_process_begins_with_its_own_part_of_a_step(tmp_path, model, monkeypatch):
    folder = RunFolder.create(tmp_path / "run", train_request(model), pairs=[])
    monkeypatch.setattr("sail.distributed.world_size", lambda: 8)
    assert MemoryFit(folder, Optimisation(batch_pairs=128), on_gpu=True).at(1).micro_batch_pairs == 16
