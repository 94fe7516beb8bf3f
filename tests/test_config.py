import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import save_file

from sail.config import MAX_PROMPT_CHARS, Loss, Mixup, Optimisation, Scoring, first_fault
from sail.model_ref import ModelRef
from sail.requests import EvaluateRequest, ExportRequest, ProposeRequest, Request, TrainRequest
from sail.settings import LoopSettings

MODEL = ModelRef(source="org/model", revision="0123abc")
REQUESTS = [
    ProposeRequest(model=MODEL, prompts=("a fox",), scoring=Scoring(), adapter="aa"),
    TrainRequest(model=MODEL, parent_adapter="aa"),
    EvaluateRequest(model=MODEL, adapter="aa"),
    ExportRequest(model=MODEL, adapter="aa", facts={"human_pairs": 12, "gate": None}),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.kind)
def test_a_request_survives_json_and_keeps_its_kind(request_):
    again = TypeAdapter(Request).validate_json(json.dumps(request_.model_dump(mode="json")))
    assert again == request_ and type(again) is type(request_)


@pytest.mark.parametrize("settings", [LoopSettings(), LoopSettings.paper()], ids=["default", "paper"])
def test_settings_survive_json(settings):
    assert LoopSettings.model_validate_json(settings.model_dump_json()) == settings


def test_the_paper_preset_has_the_papers_values():
    paper = LoopSettings.paper()
    assert (paper.loss.beta, paper.mixup.self_fraction, paper.num_candidates) == (5000, 0.25, 8)
    assert (paper.scoring.draws, paper.scoring.average, paper.optimisation.batch_pairs) == (10, "mean", 128)
    assert (paper.sampling.solver, paper.sampling.steps, paper.sampling.guidance) == ("ddpm", 50, 7.5)


def test_so_many_prompts_a_round_hold_for_all_rounds_unless_later_ones_are_said():
    paper = LoopSettings.paper()
    few, both = {"prompts_per_round": 64}, {"prompts_per_round": 64, "later_prompts_per_round": 128}
    for settings, prompts in (
        (LoopSettings(prompts_per_round=5), [5, 5, 5]),
        (paper.changed({}), [10_000, 20_000, 20_000]),
        (paper.changed(few), [64, 64, 64]),
        (paper.changed(both), [64, 128, 128]),
    ):
        assert [settings.prompts_in(number) for number in (1, 2, 3)] == prompts


def test_a_model_brings_its_own_settings_and_leaves_the_rest_at_its_default(tmp_path):
    (tmp_path / "sail.json").write_text('{"loss": {"beta": 20}, "lora": {"rank": 4}}')
    own = LoopSettings.for_model(ModelRef(source=str(tmp_path)))
    assert (own.loss.beta, own.lora.rank) == (20, 4)
    assert own.mixup == LoopSettings().mixup and own.loss.label_smoothing == Loss().label_smoothing


def test_a_model_without_settings_has_the_defaults(tmp_path):
    for source in (str(tmp_path), "owner/name", "x" * 10_000):
        assert LoopSettings.for_model(ModelRef(source=source)) == LoopSettings()


@pytest.mark.parametrize(
    ("pipeline", "guided", "expected"),
    [
        ("StableDiffusionPipeline", None, (20, 7.5)),
        ("StableDiffusionXLPipeline", None, (20, 5.0)),
        ("StableDiffusion3Pipeline", None, (28, 7.0)),
        ("FluxPipeline", True, (28, 3.5)),
        ("FluxPipeline", False, (4, 0.0)),
        ("AnotherPipeline", None, (20, 5.0)),
    ],
)
def test_a_model_is_drawn_as_its_family_is_unless_it_says_otherwise(tmp_path, pipeline, guided, expected):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    if guided is not None:
        (tmp_path / "transformer").mkdir()
        (tmp_path / "transformer/config.json").write_text(json.dumps({"guidance_embeds": guided}))
    model = ModelRef(source=str(tmp_path))
    sampling = LoopSettings.for_model(model).sampling
    assert (sampling.steps, sampling.guidance) == expected
    (tmp_path / "sail.json").write_text('{"sampling": {"steps": 9}}')
    sampling = LoopSettings.for_model(model).sampling
    assert (sampling.steps, sampling.guidance) == (9, expected[1])
    # A checkpoint in one file has its configuration in the folder of its name.
    file = tmp_path.parent / f"{tmp_path.name}.safetensors"
    file.touch()
    assert LoopSettings.for_model(ModelRef(source=str(file))).sampling.guidance == expected[1]


@pytest.mark.parametrize("text", ["{", '{"loss": {"beta": -1}}', '{"learning_rate": 1}'])
def test_settings_of_a_model_that_make_no_sense_are_refused_with_the_file_named(tmp_path, text):
    (tmp_path / "sail.json").write_text(text)
    with pytest.raises(ValueError, match=r"sail\.json holds no settings of the loop"):
        LoopSettings.for_model(ModelRef(source=str(tmp_path)))


@pytest.mark.parametrize("settings", [Scoring, Optimisation])
@pytest.mark.parametrize("timesteps", [(0.5, 0.5), (-0.1, 1), (0, 1.1), (0.8, 0.2)])
def test_a_share_of_the_timesteps_lies_between_0_and_1(settings, timesteps):
    with pytest.raises(ValidationError, match="timesteps must be"):
        settings(timesteps=timesteps)


@pytest.mark.parametrize("stored", [None, 2])
def test_what_an_earlier_version_stored_is_read(stored):
    known = Optimisation().model_dump()
    del known["self_pair_draws"]
    read = Optimisation.model_validate({**known, "draws_per_pair": stored})
    assert read == Optimisation(self_pair_draws="new")
    assert Scoring.model_validate({**Scoring().model_dump(), "bank_seed": 0}) == Scoring()


def test_an_unknown_key_is_refused_by_name():
    with pytest.raises(ValidationError, match="self_fracton"):
        Mixup(self_fracton=0.5)


def test_an_unknown_kind_or_schema_version_is_refused():
    for change in ({"kind": "dream"}, {"schema_version": 2}):
        with pytest.raises(ValidationError):
            TypeAdapter(Request).validate_python({**REQUESTS[1].model_dump(), **change})


def test_a_config_does_not_change_after_its_birth():
    with pytest.raises(ValidationError, match="frozen"):
        Mixup().self_fraction = 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Mixup(self_fraction=1.01),
        lambda: Mixup(self_fraction=float("nan")),
        lambda: Loss(beta=0),
        lambda: Loss(label_smoothing=0.5),
        lambda: Optimisation(learning_rate=float("inf")),
        lambda: ProposeRequest(model=MODEL, prompts=()),
        lambda: ProposeRequest(model=MODEL, prompts=("",)),
        lambda: ProposeRequest(model=MODEL, prompts=("x" * (MAX_PROMPT_CHARS + 1),)),
        lambda: ProposeRequest(model=MODEL, prompts=("a fox",), num_candidates=1),
    ],
)
def test_a_wrong_value_never_gets_in(wrong):
    with pytest.raises(ValidationError):
        wrong()


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [
        ("optimisation.learning_rate", 1000, "1"),
        ("optimisation.batch_pairs", 10**9, "65536"),
        ("optimisation.micro_batch_pairs", 10**9, "65536"),
        ("optimisation.warmup_steps", 10**9, "1000000"),
        ("loss.beta", 1e12, "1000000000"),
        ("loss.mirrored_step", 1e3, "10"),
        ("loss.winner_penalty", 1e6, "1000"),
        ("loss.winner_pull", 1e6, "1000"),
        ("loss.hold_ties", 1e6, "1000"),
        ("sampling.guidance", 1e4, "100"),
        ("sampling.chunk", 10**9, "65536"),
        ("scoring.draws", 10**9, "1000"),
        ("scoring.chunk", 10**9, "65536"),
        ("monitoring.per_prompt", 10**9, "1000"),
        ("monitoring.min_diversity_ratio", 100, "10"),
        ("candidates_per_pair", 10**9, "1000"),
        ("num_candidates", 10**9, "1000"),
        ("prompts_per_round", 10**9, "1000000"),
        ("later_prompts_per_round", 10**9, "1000000"),
    ],
)
def test_a_number_that_is_beyond_all_use_is_refused_with_the_most_it_may_be(name, value, most):
    *parts, last = name.split(".")
    changes = {last: value}
    for part in parts:
        changes = {part: changes}
    with pytest.raises(ValidationError) as refused:
        LoopSettings().changed(changes)
    assert first_fault(refused.value) == f"{name}: Input should be less than or equal to {most}."


def test_what_was_stored_before_it_had_a_bound_is_read_as_the_most_it_may_be():
    values = LoopSettings().model_dump(mode="json")
    values["optimisation"] |= {"learning_rate": 1000, "batch_pairs": 10**9, "steps": 7}
    settings = LoopSettings.stored({**values, "gone": 1})
    assert settings == LoopSettings().changed(
        {"optimisation": {"learning_rate": 1, "batch_pairs": 65_536, "steps": 7}}
    )
    values["sampling"]["size"] = [9000, 64]
    assert LoopSettings.stored(values).sampling.size == (8192, 64)
    values["optimisation"]["steps"] = 0
    with pytest.raises(ValidationError, match="steps"):
        LoopSettings.stored(values)
    with pytest.raises(ValidationError):
        LoopSettings.stored(["no settings"])


def test_pairs_that_need_more_candidates_name_both_settings_and_what_to_do():
    sentence = (
        r"3 pairs of a prompt \(self_pairs_per_prompt\) need 6 candidates \(num_candidates\), got 4. "
        "Set num_candidates to at least 6, or self_pairs_per_prompt to at most 2."
    )
    for asked in (
        lambda: LoopSettings(self_pairs_per_prompt=3, num_candidates=4),
        lambda: ProposeRequest(
            model=MODEL,
            prompts=("a fox",),
            scoring=Scoring(),
            adapter="aa",
            self_pairs_per_prompt=3,
            num_candidates=4,
        ),
    ):
        with pytest.raises(ValidationError, match=sentence):
            asked()
    with pytest.raises(ValidationError, match="or pairs_to_show to at most 1"):
        ProposeRequest(model=MODEL, prompts=("a fox",), num_candidates=2, pairs_to_show=2)


@pytest.mark.parametrize("adapter", [None, "aa"])
def test_a_policy_is_not_scored_against_itself(adapter):
    with pytest.raises(ValidationError, match="scored against itself"):
        ProposeRequest(
            model=MODEL, prompts=("a fox",), scoring=Scoring(), adapter=adapter, reference_adapter=adapter
        )


def test_seed_pairs_need_no_adapter_since_nothing_is_scored():
    assert ProposeRequest(model=MODEL, prompts=("a fox",)).scoring is None


def test_a_diffusers_folder_is_a_model(tmp_path: Path):
    (tmp_path / "model_index.json").write_text("{}")
    model = ModelRef(source=str(tmp_path))
    assert model.checked() is model


def test_a_hub_id_with_a_pinned_revision_is_a_model():
    assert MODEL.checked() is MODEL


def test_a_hub_id_without_a_revision_is_refused():
    with pytest.raises(ValueError, match="needs a revision"):
        ModelRef(source="org/model").checked()


def test_a_folder_that_is_no_model_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ValueError, match=f"{tmp_path} is not a diffusers model"):
        ModelRef(source=str(tmp_path)).checked()


@pytest.mark.parametrize(
    "source",
    [
        "",
        "no/such/folder",
        "https://host/org/model",
        "../../no/such/model",
        "org/..",
        "org/model;rm",
        "a\0b",
        "x" * 10_000,
    ],
)
def test_a_source_that_is_neither_folder_nor_hub_id_gets_one_sentence(source):
    with pytest.raises(ValueError, match="No model at") as error:
        ModelRef(source=source, revision="0123abc").checked()
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_is_not_whole_is_refused_where_it_is_named(tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    save_file({"weight": np.zeros((8, 8), dtype="float32")}, whole)
    assert ModelRef(source=str(whole)).checked().source == str(whole)
    cut.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"cut\.safetensors cannot be read as safetensors.*download it again"
    ):
        ModelRef(source=str(cut)).checked()


@pytest.mark.parametrize(
    "changes",
    [
        {"monitoring": {"prompts": ["a fox"]}},
        {"optimisation": {"noise_seed": 7}},
        {"lora": {"alpha": 0}},
    ],
)
def test_a_setting_that_no_round_would_use_is_refused_and_read_where_it_was_stored(changes):
    ((part, own),) = changes.items()
    with pytest.raises(ValueError, match=next(iter(own))):
        LoopSettings().changed(changes)
    stored = LoopSettings.model_validate({part: own})
    assert stored.changed({"monitor_prompts": 3}).monitor_prompts == 3
