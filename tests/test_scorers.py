"""Outside scorers on CLIPs of random weights: formulas, files, and what they say of an adapter."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from engine import sail
from PIL import Image, UnidentifiedImageError
from safetensors.torch import load_file, save_file
from tiny_scorers import WIDTH, build_aesthetic, build_clip, head_weights
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from sail import backbones, scorers
from sail.config import Lora
from sail.evaluating import Shown, _scores, verdict
from sail.files import read_lines
from sail.model_ref import ModelRef
from sail.policy import Policy
from sail.records import Interval
from sail.requests import TrainRequest
from sail.runfolder import RunFolder
from sail.scorers import CLIP_H, CLIP_L, HEAD, PICKSCORE, HubFiles

CPU = torch.device("cpu")
PROMPTS = ("a red fox", "a big pizza on a blue background", "a fox")
LONG = "a red fox " * 40


def noise_images(count: int = 3) -> list[Image.Image]:
    """No two of one size, none square."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(20 + 7 * n, 31, 3) for n in range(count)]
    return [
        Image.fromarray(torch.randint(256, shape, generator=generator, dtype=torch.uint8).numpy())
        for shape in shapes
    ]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return build_clip(tmp_path_factory.mktemp("scorers") / "clip")


@pytest.fixture(scope="module")
def aesthetic(tmp_path_factory) -> Path:
    return build_aesthetic(tmp_path_factory.mktemp("scorers") / "aesthetic")


def scores(name: str, path: Path | None, prompts=PROMPTS, images=None) -> list[float]:
    scorer = scorers.find(name, path).load(CPU)
    return scorers.score(scorer, prompts, noise_images(len(prompts)) if images is None else images, name=name)


def refusal(name: str, path: Path | None = None) -> str:
    with pytest.raises(ValueError) as error:
        scores(name, path)
    assert "\n" not in str(error.value)
    return str(error.value)


# The formulas, against the model's own forward pass


@torch.no_grad()
def cosines(folder: Path) -> torch.Tensor:
    """From transformers' own forward pass, one image and prompt at a time."""
    model = CLIPModel.from_pretrained(folder)
    pixels, words = CLIPImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    for prompt, image in zip(PROMPTS, noise_images(), strict=True):
        out = model(**words(prompt, return_tensors="pt"), **pixels(images=image, return_tensors="pt"))
        found.append(torch.cosine_similarity(out.image_embeds, out.text_embeds).item())
    return torch.tensor(found)


def test_an_image_is_handed_to_no_other_program(tmp_path, monkeypatch):
    handed = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **_: handed.append(given))
    file = tmp_path / "00000-0.png"
    Image.new("RGB", (8, 8)).save(file, format="EPS")
    shown = [Shown(0, "a fox", "base", file, "images/candidates/00000-0.png")]
    found = SimpleNamespace(name="any", load=lambda device: None)
    with pytest.raises(UnidentifiedImageError):
        _scores(found, shown, CPU)
    assert handed == []


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("pickscore", lambda cosine: math.exp(4.0) * cosine),
        ("hpsv2", lambda cosine: 100 * cosine),
        ("clip", lambda cosine: 100 * cosine.clamp(min=0)),
    ],
)
def test_a_score_is_its_formula_of_the_cosine_that_the_model_computes(clip, name, formula):
    expected = formula(cosines(clip))
    assert torch.tensor(scores(name, clip)).allclose(expected, atol=1e-3)
    assert len({round(value, 3) for value in cosines(clip).tolist()}) == 3


def test_the_clip_score_of_an_image_that_points_away_from_its_prompt_is_0(clip):
    away = cosines(clip) < 0
    assert away.any() and not away.all()
    assert [value == 0 for value in scores("clip", clip)] == away.tolist()


@torch.no_grad()
def test_the_aesthetic_score_is_the_published_layers_on_the_unit_image_embedding(aesthetic):
    model, weights = CLIPModel.from_pretrained(aesthetic), load_file(aesthetic / HEAD)
    pixels = CLIPImageProcessorPil.from_pretrained(aesthetic)(images=noise_images(), return_tensors="pt")
    embeds = model.visual_projection(model.vision_model(**pixels).pooler_output)
    hidden = embeds / embeds.norm(dim=-1, keepdim=True)
    for place in (0, 2, 4, 6, 7):
        hidden = hidden @ weights[f"layers.{place}.weight"].T + weights[f"layers.{place}.bias"]
    assert torch.tensor(scores("aesthetic", aesthetic)).allclose(hidden[:, 0], atol=1e-5)


def test_a_score_does_not_hang_on_what_else_is_in_the_batch(clip):
    alone = [
        scores("pickscore", clip, [prompt], [image])[0]
        for prompt, image in zip(PROMPTS, noise_images(), strict=True)
    ]
    assert scores("pickscore", clip) == pytest.approx(alone, abs=1e-3)


def test_a_prompt_that_is_too_long_is_scored_as_what_of_it_fits(clip):
    tokens, room = AutoTokenizer.from_pretrained(clip), CLIPModel.from_pretrained(clip).config.text_config
    words, fits = LONG.split(), room.max_position_embeddings - len(tokens("").input_ids)
    cut, less = (" ".join(words[:count]) for count in (fits, fits - 1))
    assert len(tokens(cut).input_ids) == room.max_position_embeddings, "a word is a token"
    of_long, of_cut, of_less = scores("pickscore", clip, [LONG, cut, less], noise_images(1) * 3)
    assert of_long == pytest.approx(of_cut, abs=1e-3) and of_less != pytest.approx(of_cut, abs=1e-3)


# Where scorers come from


def put_into_cache(cache: Path, files: HubFiles, content: Path, *names: str) -> None:
    repository = cache / f"models--{files.repository.replace('/', '--')}"
    snapshot = repository / "snapshots" / files.revision
    snapshot.mkdir(parents=True)
    for file in content.iterdir():
        if not names or file.name in names:
            shutil.copy(file, snapshot)


def test_named_scorers_are_read_from_the_hubs_cache_at_their_pinned_commits(
    clip, aesthetic, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    put_into_cache(tmp_path / "cache", PICKSCORE, clip, "config.json", "model.safetensors")
    processor = [file.name for file in clip.iterdir() if file.name != "model.safetensors"]
    put_into_cache(tmp_path / "cache", CLIP_H, clip, *processor)
    put_into_cache(tmp_path / "cache", CLIP_L, aesthetic)
    assert scores("pickscore", None) == scores("pickscore", clip)
    (tmp_path / "head").mkdir()
    shutil.copy(aesthetic / HEAD, tmp_path / "head")
    assert scores("aesthetic", tmp_path / "head") == scores("aesthetic", aesthetic)
    assert scorers.find("pickscore").source == "yuvalkirstain/PickScore_v1 at a4e4367c6dfa"


@pytest.mark.parametrize("name", ["pickscore", "clip"])
def test_without_a_network_it_says_what_to_get_and_where_to_put_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    said = refusal(name)
    assert scorers.PUBLISHED[name].weights.repository in said and "the hub could not be asked" in said
    assert f"--scorer-path {name}=DIR" in said and "docs/scorers.md" in said


@pytest.mark.parametrize("name", ["hpsv2", "aesthetic"])
def test_one_that_is_published_as_a_pickle_alone_asks_for_a_folder(name):
    said = refusal(name)
    assert "is not published as safetensors" in said and f"--scorer-path {name}=DIR" in said


def test_an_unknown_name_is_refused_with_the_known_ones():
    assert "Known: pickscore, hpsv2, clip, aesthetic; or give one of your own" in refusal("imagereward")


def test_a_missing_folder_is_refused_with_what_belongs_there(tmp_path):
    said = refusal("hpsv2", tmp_path / "none")
    assert str(tmp_path / "none") in said and "Put there a CLIP model and its processor" in said


def test_weights_that_are_a_pickle_are_refused(clip, tmp_path):
    folder = shutil.copytree(clip, tmp_path / "clip")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "whole and in safetensors files" in refusal("hpsv2", folder)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_weights_of_another_model_are_refused_by_name_and_not_made_up(clip, tmp_path, change):
    folder = shutil.copytree(clip, tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    projection = weights.pop("visual_projection.weight")
    if change == "shape":
        weights["visual_projection.weight"] = projection[:, :-1].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "1 of its weights" in refusal("clip", folder)
    assert "visual_projection.weight" in refusal("clip", folder)


@pytest.mark.parametrize("file", ["preprocessor_config.json", "tokenizer.json"])
def test_a_folder_without_its_processor_is_refused(clip, tmp_path, file):
    folder = shutil.copytree(clip, tmp_path / "clip")
    (folder / file).unlink()
    said = refusal("clip", folder)
    assert str(folder) in said and "Put preprocessor_config.json and the tokenizer's files" in said


@pytest.mark.parametrize(
    "weights",
    [
        head_weights(WIDTH + 1),
        {name: tensor for name, tensor in head_weights().items() if name != "layers.6.bias"},
        {**head_weights(), "layers.9.weight": torch.ones(1)},
    ],
    ids=["width", "missing", "more"],
)
def test_layers_that_do_not_fit_the_aesthetic_predictor_are_refused(aesthetic, tmp_path, weights):
    folder = shutil.copytree(aesthetic, tmp_path / "aesthetic")
    save_file(weights, folder / HEAD)
    assert f"does not hold the aesthetic predictor's layers, {WIDTH}-1024-128" in refusal("aesthetic", folder)


def test_an_aesthetic_folder_without_its_layers_is_refused(clip):
    assert f"holds no {HEAD}" in refusal("aesthetic", clip)


OWN = """
import torch
from PIL import ImageStat
def red(device):
    def score(prompts, images):
        return torch.tensor([ImageStat.Stat(image).mean[0] for image in images], device=device)
    return score
def one_for_all(device):
    return lambda prompts, images: torch.ones(1)
def broken(device):
    return lambda prompts, images: torch.full((len(images),), float("nan"))
number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_scorers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_scorers", None)


def test_a_scorer_of_ones_own_is_found_by_its_import_path(own):
    images = [Image.new("RGB", (8, 8), (red, 0, 0)) for red in (10, 200)]
    assert scores("own_scorers:red", None, ["a", "a"], images) == [10, 200]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:red", "cannot be imported: No module named 'no_such_module'"),
        ("own_scorers:green", "cannot be imported"),
        ("own_scorers:", "cannot be imported"),
        ("own_scorers:number", "is no function"),
        ("own_scorers:one_for_all", r"shape (3,), and gave (1,)"),
        ("own_scorers:broken", "a score that is not finite"),
    ],
)
def test_a_scorer_of_ones_own_that_does_not_keep_to_the_form_is_refused(own, name, sentence):
    assert sentence in refusal(name)


# An adapter against base


@pytest.fixture(scope="module")
def model(tiny_model) -> Path:
    return tiny_model


@pytest.fixture(scope="module")
def lora(model, tmp_path_factory) -> Path:
    """An adapter that changes something."""
    policy = Policy(backbones.load(ModelRef(source=str(model))))
    policy.add_trainable(Lora(rank=2), noise_seed=0)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    policy.save(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(model, lora, clip, aesthetic, tmp_path_factory) -> tuple[list[object], Path, str]:
    root = tmp_path_factory.mktemp("evaluated")
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    arguments = [
        *(lora, "--model", model, "--prompts", root / "prompts.txt", "--per-prompt", 2),
        *("--scorers", "pickscore,aesthetic", "--scorer-path", f"pickscore={clip}"),
        *("--scorer-path", f"aesthetic={aesthetic}", "--out", root / "out"),
    ]
    done = sail("evaluate", *arguments)
    assert done.exit_code == 0, done.stderr
    return arguments, root / "out", done.stdout


def test_base_and_adapter_are_scored_on_the_same_prompts_and_every_score_is_written(evaluated, clip):
    _, out, _ = evaluated
    lines = read_lines(out / "scores.jsonl")
    looks = [(line["prompt"], line["look"]) for line in lines]
    assert looks == [(prompt, look) for prompt in PROMPTS for look in ("base", "base", "adapter", "adapter")]
    images = [Image.open(out / line["image"]) for line in lines]
    again = scores("pickscore", clip, [line["prompt"] for line in lines], images)
    assert [line["pickscore"] for line in lines] == pytest.approx(again, abs=1e-3)
    first = RunFolder(out / "images").request()
    assert first.looks[0].adapter is None and first.looks[1].adapter is not None


def test_the_report_is_the_mean_the_gain_and_the_share_of_prompts_won(evaluated):
    _, out, told = evaluated
    lines = read_lines(out / "scores.jsonl")
    report = json.loads((out / "scores.json").read_text())
    assert [one["scorer"] for one in report["scorers"]] == ["pickscore", "aesthetic"]
    for one in report["scorers"]:
        score = torch.tensor([line[one["scorer"]] for line in lines], dtype=torch.float64).view(3, 2, 2)
        base, adapter = score.mean(2).unbind(1)
        gain = adapter - base
        half = 1.959964 * gain.std() / math.sqrt(3)
        for name, value in {
            "base": base.mean(),
            "adapter": adapter.mean(),
            "gain": gain.mean(),
            "gain_low": gain.mean() - half,
            "gain_high": gain.mean() + half,
        }.items():
            assert one[name] == pytest.approx(float(value), rel=1e-5), name
        assert one["won"] == Interval.of(int((gain > 0).sum()), 3).model_dump() and one["ties"] == 0
        assert f"| {one['scorer']} | {one['base']:.4f} | {one['adapter']:.4f} |" in told
    assert told == (out / "scores.md").read_text() and "3 prompts, 2 images of each" in told


def test_the_same_command_again_draws_nothing_and_says_the_same(evaluated):
    arguments, out, told = evaluated
    drawn = {file: file.stat().st_mtime_ns for file in (out / "images").rglob("*.png")}
    again = sail("evaluate", *arguments)
    assert again.stdout == told and len(drawn) == 12
    assert {file: file.stat().st_mtime_ns for file in (out / "images").rglob("*.png")} == drawn


def test_other_options_in_the_same_folder_are_refused(evaluated):
    arguments, _, _ = evaluated
    done = sail("evaluate", *arguments, "--noise-seed", 1)
    assert done.exit_code == 2 and "the images of another evaluation" in done.stderr


def test_a_tie_counts_half_and_one_prompt_has_no_interval_of_its_gain():
    from sail.evaluating import Shown

    shown = [
        Shown(prompt, "a fox", look, Path("x.png"), "x.png")
        for prompt in range(4)
        for look in ("base", "adapter")
    ]
    found = verdict("any", "anywhere", shown, [1, 2, 1, 1, 1, 0, 1, 3])
    assert (found.gain, found.ties, found.won) == (0.5, 1, Interval.of(2.5, 4))
    alone = verdict("any", "anywhere", shown[:2], [1, 2])
    assert (alone.gain, alone.gain_low, alone.gain_high) == (1, None, None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["LORA", "--scorers", "clip", "--scorer-path", "clip=CLIP"], "Give --model"),
        (["LORA", "--scorers", "clip", "--scorer-path", "clip=CLIP", "--model", "MODEL"], "Give --prompts"),
        (["MODEL", "--scorers", "clip"], "is no folder of a loop, of a train run or of a LoRA"),
        (["TRAIN", "--scorers", "clip"], "has not ended"),
        (["LORA", "--scorers", " , "], "--scorers names none"),
        (["LORA", "--scorers", "clip", "--scorer-path", "CLIP"], "is not NAME=DIR"),
        (["LORA", "--scorers", "clip", "--scorer-path", "hpsv2=CLIP"], "--scorers does not name"),
        (["LORA"], "is not a run folder"),
        (["LORA", "--out", "MODEL"], "belong to --scorers"),
        (["LORA", "--per-prompt", "4"], "belong to --scorers"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(model, lora, clip, tmp_path, arguments, sentence):
    train = RunFolder.create(tmp_path / "train", TrainRequest(model=ModelRef(source=str(model))))
    places = {"LORA": lora, "MODEL": model, "CLIP": clip, "clip=CLIP": f"clip={clip}", "TRAIN": train.path}
    done = sail("evaluate", *(places.get(word, word) for word in arguments))
    assert done.exit_code == 2 and sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_scorer_that_cannot_be_had_is_refused_before_anything_is_drawn(model, lora, tmp_path):
    (tmp_path / "prompts.txt").write_text("a fox")
    done = sail(
        "evaluate",
        *(lora, "--model", model, "--prompts", tmp_path / "prompts.txt"),
        *("--scorers", "hpsv2", "--out", tmp_path / "out"),
    )
    assert done.exit_code == 2 and "--scorer-path hpsv2=DIR" in done.stderr
    assert not (tmp_path / "out").exists()


# What docs/scorers.md says


@pytest.fixture(scope="module")
def recipes(root) -> list[str]:
    """Its blocks of Python: HPSv2's, the aesthetic predictor's, one's own."""
    text = (root / "docs/scorers.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_recipe_for_hpsv2_turns_a_pickle_into_a_folder_that_scores_the_same(
    recipes, clip, tmp_path, monkeypatch
):
    folder = shutil.copytree(clip, tmp_path / "hpsv2-pickle")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    exec(recipes[0], {})
    assert scores("hpsv2", tmp_path / "hpsv2") == scores("hpsv2", clip)


def test_the_recipe_for_the_aesthetic_predictor_turns_its_pickle_into_what_is_read(
    recipes, aesthetic, tmp_path, monkeypatch
):
    torch.save(head_weights(), tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    shutil.copytree(aesthetic, tmp_path / "aesthetic", ignore=shutil.ignore_patterns(HEAD))
    monkeypatch.chdir(tmp_path)
    exec(recipes[1], {})
    assert scores("aesthetic", tmp_path / "aesthetic") == scores("aesthetic", aesthetic)


def test_the_example_of_ones_own_scorer_is_one(recipes):
    made: dict = {}
    exec(recipes[2], made)
    images = [Image.new("RGB", (8, 8), (level,) * 3) for level in (10, 200)]
    assert scorers.score(made["brightness"](CPU), ["a", "a"], images, name="own") == [10, 200]


def test_the_commits_and_names_that_are_documented_are_those_of_the_code(root):
    text = (root / "docs/scorers.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert told == list(scorers.PUBLISHED)
    for known in scorers.PUBLISHED.values():
        assert all(files.repository in text for files in (known.weights, known.processor) if files)
    assert all(re.fullmatch(r"[0-9a-f]{40}", files.revision) for files in (PICKSCORE, CLIP_L, CLIP_H))
