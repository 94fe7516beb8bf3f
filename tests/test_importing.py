"""Pairs that others collected: parquet as Pick-a-Pic's -> seed pairs that the loop learns from."""

import io
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from annotating import drawn, label, make_store
from engine import sail
from pick_a_pic import write_parquet
from PIL import Image, ImageOps
from safetensors.torch import load_file
from typer.testing import Result

from annotator import preferences
from sail import backbones, importing
from sail.backbones.pipeline import PipelineBackbone
from sail.config import MAX_PROMPT_CHARS, MAX_SIDE, Lora
from sail.files import read_lines, sha256_file
from sail.importing import Row, imported, rows_or_why_not
from sail.model_ref import ModelRef
from sail.requests import TrainRequest
from sail.runfolder import RunFolder
from sail.running import execute


@pytest.fixture(scope="module")
def model(tiny_model) -> Path:
    return tiny_model


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    write_parquet(folder / "train-00000.parquet", rows=40, noise_seed=0, row_group_size=7)
    write_parquet(folder / "train-00001.parquet", rows=24, noise_seed=1, row_group_size=24)
    return folder


def import_pairs(model, parquet, out, *more: object) -> Result:
    return sail("import-pairs", "--model", model, "--parquet", parquet, "--out", out, *more)


def rows_with_winner(file: Path) -> list[Row]:
    return [one for one in rows_or_why_not(file) if isinstance(one, Row)]


def sentences(done: Result) -> list[str]:
    """What is said of a mistake, without the stage before it."""
    return [line for line in done.stderr.strip().splitlines() if not line.startswith("encode pairs")]


@pytest.fixture(scope="module")
def out(model, parquet, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("import") / "out"
    done = import_pairs(model, parquet, folder, "--share", 0.5)
    assert done.exit_code == 0, done.stderr
    return folder


def table_of(parquet: Path) -> pd.DataFrame:
    files = sorted(parquet.glob("*.parquet"))
    tables = [pd.read_parquet(file).assign(id=f"human-{file.stem}-") for file in files]
    table = pd.concat([table.assign(id=table["id"] + table.index.astype(str)) for table in tables])
    return table.set_index("id")


def test_winner_and_loser_are_the_encoded_images_that_people_preferred_and_did_not(model, parquet, out):
    backbone, table = backbones.load(ModelRef(source=str(model))), table_of(parquet)
    pairs = imported(out)
    sides = set()
    for pair in pairs:
        row = table.loc[pair.id]
        winner, loser = ("jpg_1", "jpg_0") if row["label_1"] > row["label_0"] else ("jpg_0", "jpg_1")
        sides.add(winner)
        assert pair.prompt == row["caption"] and pair.source == "human"
        for column, ref in ((winner, pair.winner), (loser, pair.loser)):
            image = Image.open(io.BytesIO(row[column])).convert("RGB")
            found = load_file(ref.file)["latents"][ref.row]
            assert torch.allclose(found, backbone.encode([image])[0], atol=1e-4)
    assert sides == {"jpg_0", "jpg_1"}


def test_ties_and_rows_without_a_label_or_a_caption_are_left_out(parquet, out):
    table = table_of(parquet)
    usable = table[
        (table["label_0"] != table["label_1"]) & table["label_0"].notna() & (table["caption"] != "")
    ]
    assert 0 < len(usable) < len(table)
    assert {pair.id for pair in imported(out)} < set(usable.index)
    found = [row for file in sorted(parquet.glob("*.parquet")) for row in rows_with_winner(file)]
    assert len(found) == len(usable)


def test_about_the_share_that_was_asked_for_is_drawn_and_another_seed_draws_others(
    model, parquet, out, tmp_path
):
    usable = sum(len(rows_with_winner(file)) for file in parquet.glob("*.parquet"))
    first = {pair.id for pair in imported(out)}
    assert 0.25 < len(first) / usable < 0.75
    assert import_pairs(model, parquet, tmp_path / "other", "--share", 0.5, "--noise-seed", 1).exit_code == 0
    second = {pair.id for pair in imported(tmp_path / "other")}
    assert first - second and second - first
    assert import_pairs(model, parquet, tmp_path / "all").exit_code == 0
    assert len(imported(tmp_path / "all")) == usable


def test_a_rows_lot_does_not_hang_on_the_other_files(model, parquet, out, tmp_path):
    alone = parquet / "train-00001.parquet"
    assert import_pairs(model, alone, tmp_path / "out", "--share", 0.5).exit_code == 0
    drawn = [pair.id for pair in imported(out) if "00001" in pair.id]
    assert [pair.id for pair in imported(tmp_path / "out")] == drawn


def test_prompts_of_no_seed_pair_come_first(out, parquet):
    prompts = (out / "prompts.txt").read_text().splitlines()
    taken = {pair.prompt for pair in imported(out)}
    fresh = [prompt not in taken for prompt in prompts]
    assert any(fresh) and fresh == sorted(fresh, reverse=True)
    assert len(prompts) == len(set(prompts)) and taken <= set(prompts)


def test_an_import_that_was_cut_short_goes_on_and_ends_the_same(model, parquet, out, tmp_path):
    assert import_pairs(model, parquet, tmp_path / "out", "--share", 0.5).exit_code == 0
    files = sorted((tmp_path / "out/latents").iterdir())
    assert len(files) > 1
    files[-1].unlink()
    (tmp_path / "out/pairs.jsonl").unlink()
    kept = files[0].stat().st_mtime_ns
    assert import_pairs(model, parquet, tmp_path / "out", "--share", 0.5).exit_code == 0
    assert files[0].stat().st_mtime_ns == kept
    for name in ("pairs.jsonl", "prompts.txt", *(f"latents/{file.name}" for file in files)):
        assert sha256_file(tmp_path / "out" / name) == sha256_file(out / name), name


def test_the_same_folder_with_other_options_is_refused(model, parquet, out):
    done = import_pairs(model, parquet, out, "--share", 0.4)
    assert done.exit_code == 2 and "holds another import: it differs in share" in done.stderr


def test_a_file_that_was_taken_out_makes_another_import(model, parquet, tmp_path):
    """Rows would get the numbers of others, whose latents are kept."""
    files = shutil.copytree(parquet, tmp_path / "in")
    assert import_pairs(model, files, tmp_path / "out", "--share", 0.1).exit_code == 0
    (files / "train-00000.parquet").unlink()
    (tmp_path / "out/pairs.jsonl").unlink()
    done = import_pairs(model, files, tmp_path / "out", "--share", 0.1)
    assert done.exit_code == 2 and "it differs in files.train-00000.parquet" in done.stderr


def test_imported_pairs_take_the_place_of_an_annotator(model, out, tmp_path):
    from sail.config import Lora, Optimisation, Sampling, Scoring
    from sail.settings import LoopSettings

    settings = LoopSettings(
        held_out_every=5,
        lora=Lora(rank=2),
        monitor_prompts=0,
        optimisation=Optimisation(steps=2, batch_pairs=4),
        scoring=Scoring(draws=2),
        sampling=Sampling(steps=2),
    )
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    given = ("loop", "--model", model, "--prompts", out / "prompts.txt", "--out", tmp_path / "loop")
    more = ("--settings", tmp_path / "settings.json", "--rounds", 0)
    done = sail(*given, *more, "--pairs", out)
    assert done.exit_code == 0, done.stderr
    pairs = read_lines(tmp_path / "loop/runs/0001-train/pairs.jsonl")
    assert [pair["id"] for pair in pairs] == [pair.id for pair in imported(out)]
    held_out = {pair["prompt"] for pair in pairs if pair["held_out"]}
    assert 0 < len(held_out) < len({pair["prompt"] for pair in pairs}) / 2
    assert not held_out & {pair["prompt"] for pair in pairs if not pair["held_out"]}
    (round_,) = json.loads((tmp_path / "loop/result.json").read_text())["rounds"]
    assert round_["human_pairs"] == sum(not pair["held_out"] for pair in pairs)


# Of a training that is refused before it; were it not, it would soon be over.
ONE_STEP = {
    "lora": {"rank": 2},
    "optimisation": {"steps": 1, "batch_pairs": 4},
    "scoring": {"draws": 2},
    "monitor_prompts": 0,
}


def test_pairs_that_another_autoencoder_encoded_are_refused_before_a_step_is_trained(model, out, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    config = other / "vae/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 0.25}))
    (tmp_path / "settings.json").write_text(json.dumps(ONE_STEP))
    given = ("loop", "--model", other, "--prompts", out / "prompts.txt", "--out", tmp_path / "loop")
    done = sail(*given, "--settings", tmp_path / "settings.json", "--rounds", 0, "--pairs", out)
    assert (
        done.exit_code == 2 and "holds latents of another autoencoder (4 channels, scaled by" in done.stderr
    )
    assert not list((tmp_path / "loop/runs").glob("*/metrics.jsonl"))


def test_pairs_of_another_size_than_is_drawn_are_refused_before_a_step_is_trained(model, out, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({**ONE_STEP, "sampling": {"size": [16, 24]}}))
    given = ("loop", "--model", model, "--prompts", out / "prompts.txt", "--out", tmp_path / "loop")
    done = sail(*given, "--settings", tmp_path / "settings.json", "--rounds", 0, "--pairs", out)
    assert done.exit_code == 2 and "are 4 x 8 x 8, those of the images to draw 4 x 4 x 6" in done.stderr
    assert not list((tmp_path / "loop/runs").glob("*/metrics.jsonl"))


def test_labels_that_are_no_number_and_captions_that_are_no_text_are_left_out(parquet, tmp_path):
    table = pq.read_table(parquet / "train-00001.parquet").slice(0, 4)
    columns = {
        "label_0": pa.array([1.0, float("nan"), 0.0, 1.0]),
        "label_1": pa.array([0.0, float("nan"), float("nan"), 0.0]),
        "caption": pa.array(["a fox", "a fox", "a fox", "itâ\x80\x99s a fox"]),
    }
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, tmp_path / "train.parquet")
    assert [row.number for row in rows_with_winner(tmp_path / "train.parquet")] == [0]


def test_pairs_that_the_model_judged_are_not_taken_for_those_of_people(parquet, tmp_path):
    table = pq.read_table(parquet / "train-00001.parquet").slice(3, 3)
    for name, values in {"label_0": [1.0] * 3, "label_1": [0.0] * 3, "caption": ["a fox"] * 3}.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    table = table.append_column("source", pa.array(["human", "self", None]))
    pq.write_table(table, tmp_path / "preferences.parquet")
    assert [row.number for row in rows_with_winner(tmp_path / "preferences.parquet")] == [0, 2]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "Give --annotator, a program to ask, or --pairs"),
        (["--annotator", "true", "--pairs", "OUT"], "what import-pairs wrote, not both."),
        (["--pairs", "OUT", "--seed-pairs", "9"], "Leave out --seed-pairs"),
        (["--pairs", "EMPTY"], "holds no pairs.jsonl"),
    ],
)
def test_what_a_loop_cannot_start_from_is_one_sentence(model, out, tmp_path, more, sentence):
    places = {"OUT": out, "EMPTY": tmp_path}
    given = ("loop", "--model", model, "--prompts", out / "prompts.txt", "--out", tmp_path / "loop")
    done = sail(*given, *(places.get(word, word) for word in more))
    assert done.exit_code == 2 and sentence in done.stderr and not (tmp_path / "loop").exists()


@pytest.mark.parametrize("about_people", [True, False])
def test_both_tables_that_the_app_exports_are_imported(model, tmp_path, about_people):
    store = make_store(tmp_path / "project")
    pairs, values = drawn(store, 5), ("left", "right", "tie", "both_bad", "right")
    for pair, value in zip(pairs, values, strict=True):
        label(store, pair, value)
    preferences.write_parquet(store, tmp_path / "preferences.parquet", about_people=about_people)
    done = import_pairs(model, tmp_path / "preferences.parquet", tmp_path / "out")
    assert "3 pairs in" in done.stdout and "of 5 rows; passed over: 2 tied" in done.stdout, done.stderr
    assert [pair.prompt for pair in imported(tmp_path / "out")] == [pairs[at].prompt for at in (0, 1, 4)]
    store.close()


def parquet_with(folder: Path, image: Image.Image, **how: object) -> None:
    """A parquet of six rows; what row 3 shows second is this image."""
    folder.mkdir()
    write_parquet(folder / "train.parquet", rows=6, noise_seed=0, row_group_size=6, ties=False)
    table, file = pd.read_parquet(folder / "train.parquet"), io.BytesIO()
    image.save(file, **how)
    table.at[3, "jpg_1"] = file.getvalue()
    table.to_parquet(folder / "train.parquet")


def test_an_image_that_would_fill_the_memory_is_not_decoded(model, tmp_path):
    parquet_with(tmp_path / "in", Image.new("1", (MAX_SIDE + 1, 8)), format="PNG")
    assert "1 with an image that cannot" in import_pairs(model, tmp_path / "in", tmp_path / "out").stdout


def test_a_photo_is_learned_from_as_people_saw_it(model, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # Orientation: the camera was held upright.
    photo = Image.linear_gradient("L").convert("RGB")
    parquet_with(tmp_path / "in", photo, format="PNG", exif=turned)
    assert import_pairs(model, tmp_path / "in", tmp_path / "out").exit_code == 0
    pair = next(pair for pair in imported(tmp_path / "out") if pair.id.endswith("-3"))
    backbone = backbones.load(ModelRef(source=str(model)))
    upright = backbone.encode([photo.transpose(Image.Transpose.ROTATE_270)])[0]
    found = [load_file(ref.file)["latents"][ref.row] for ref in (pair.winner, pair.loser)]
    assert any(torch.allclose(one, upright, atol=1e-4) for one in found)


def test_a_photo_whose_exif_is_broken_lies_as_it_is(model, tmp_path):
    photo = Image.linear_gradient("L").convert("RGB")
    parquet_with(tmp_path / "in", photo, format="PNG", exif=b"no TIFF")
    assert import_pairs(model, tmp_path / "in", tmp_path / "out").exit_code == 0
    pair = next(pair for pair in imported(tmp_path / "out") if pair.id.endswith("-3"))
    as_it_is = backbones.load(ModelRef(source=str(model))).encode([photo])[0]
    found = [load_file(ref.file)["latents"][ref.row] for ref in (pair.winner, pair.loser)]
    assert any(torch.allclose(one, as_it_is, atol=1e-4) for one in found)


@pytest.mark.parametrize("way", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(way):
    photo = Image.effect_noise((5, 3), 80).convert("RGB")
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = way
    photo.save(file, format="PNG", exif=exif)
    with Image.open(file) as one, Image.open(file) as other:
        assert importing._upright(one).tobytes() == ImageOps.exif_transpose(other).convert("RGB").tobytes()


def test_files_are_taken_by_their_names_wherever_they_lie_and_folders_are_none(tmp_path):
    for name in ("a/train-2.parquet", "b/train-1.parquet", "train.parquet/part-0.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [file.name for file in importing.parquet_files(tmp_path)]
    assert found == ["part-0.parquet", "train-1.parquet", "train-2.parquet"]


def test_an_image_is_handed_to_no_other_program(model, tmp_path, monkeypatch):
    handed = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **_: handed.append(given))
    parquet_with(tmp_path / "in", Image.new("RGB", (40, 40)), format="EPS")
    assert "1 with an image that cannot" in import_pairs(model, tmp_path / "in", tmp_path / "out").stdout
    assert handed == []


def spoilt(folder: Path, rows: list[int]) -> Path:
    """A parquet of 40 rows with winners, of which some show no image first."""
    folder.mkdir()
    file = write_parquet(folder / "train.parquet", rows=40, noise_seed=0, row_group_size=7, ties=False)
    table = pd.read_parquet(file)
    for row in rows:
        table.at[row, "jpg_0"] = b"no image"
    table.to_parquet(file, row_group_size=7)
    return file


def test_rows_whose_images_cannot_be_read_are_passed_over_and_leave_the_others_as_they_were(model, tmp_path):
    broken = [0, 3, *range(16, 32)]  # A whole file of latents among them.
    for name, rows in (("whole", []), ("spoilt", broken)):
        spoilt(tmp_path / f"in-{name}", rows)
        assert import_pairs(model, tmp_path / f"in-{name}", tmp_path / name).exit_code == 0
    whole, others = ({pair.id: pair for pair in imported(tmp_path / name)} for name in ("whole", "spoilt"))
    assert list(others) == [id_ for id_ in whole if int(id_.rpartition("-")[2]) not in broken]
    for id_, pair in others.items():
        for ref, expected in ((pair.winner, whole[id_].winner), (pair.loser, whole[id_].loser)):
            found, own = (load_file(one.file)["latents"][one.row] for one in (ref, expected))
            assert torch.allclose(found, own, atol=1e-4)


def test_an_import_with_images_that_cannot_be_read_goes_on_and_ends_the_same(model, tmp_path, monkeypatch):
    given = (model, spoilt(tmp_path / "in", [2, 20]), tmp_path / "out", "--share", 0.9)
    first = import_pairs(*given)
    assert first.exit_code == 0 and "2 with an image that cannot be read" in first.stdout
    assert re.search(r"^encode pairs, \d\d to do$", first.stderr, re.MULTILINE)
    listed = sha256_file(tmp_path / "out/pairs.jsonl")
    assert import_pairs(*given).stdout == first.stdout
    (tmp_path / "out/pairs.jsonl").unlink()
    (tmp_path / "out/latents/000001.safetensors").unlink()
    assert import_pairs(*given).stdout == first.stdout
    assert sha256_file(tmp_path / "out/pairs.jsonl") == listed


def test_every_row_that_is_passed_over_is_counted_under_why(model, tmp_path):
    file = spoilt(tmp_path / "in", [0])
    table = pd.read_parquet(file)
    table.loc[1:2, ["label_0", "label_1"]] = 0.5
    table.loc[3:5, "label_1"] = None
    table.loc[6:9, "caption"] = " "
    table.loc[10:14, "caption"] = "x" * (MAX_PROMPT_CHARS + 1)
    table.loc[15:20, "caption"] = "\ufffd"
    table["source"] = "human"
    table.loc[21:27, "source"] = "self"
    table.to_parquet(file)
    done = import_pairs(model, file, tmp_path / "out")
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result == {
        "pairs": 12,
        "rows": 40,
        "passed_over": {
            "judged by the model": 7,
            "with a caption that is no text": 6,
            "with a caption of over 2,000 characters": 5,
            "without a caption": 4,
            "without a label": 3,
            "tied": 2,
            "with an image that cannot be read": 1,
        },
    }
    assert "12 pairs in" in done.stdout and "of 40 rows; passed over: 7 judged by the model, 6" in done.stdout
    assert len(imported(tmp_path / "out")) == 12
    done = import_pairs(model, file, tmp_path / "half", "--share", 0.5)
    result = json.loads((tmp_path / "half/result.json").read_text())
    assert result["passed_over"]["not drawn by lot"] > 0
    assert result["pairs"] + sum(result["passed_over"].values()) == result["rows"] == 40


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("label_0", None, "Read: 40 rows; passed over: 40 without a label."),
        ("caption", "x" * (MAX_PROMPT_CHARS + 1), "over: 40 with a caption of over 2,000 characters."),
        (
            "jpg_1",
            b"no image",
            "two images that can be read, as JPEG, PNG, WEBP of at most 8192 pixels a side",
        ),
        (None, None, "Read: 0 rows. A row needs a caption of at most 2,000 characters"),
    ],
)
def test_where_no_pair_is_left_it_is_said_what_was_found(model, tmp_path, column, value, found):
    file = spoilt(tmp_path / "in", [])
    table = pd.read_parquet(file)
    if column is None:
        table = table[:0].astype({"caption": str})
    else:
        table[column] = value
    table.to_parquet(file)
    done = import_pairs(model, file, tmp_path / "out")
    assert done.exit_code == 2 and found in done.stderr and "--share" not in done.stderr
    assert len(sentences(done)) == 1


def test_a_file_that_breaks_among_its_images_is_refused_and_none_of_its_rows_passed_over(model, tmp_path):
    file = spoilt(tmp_path / "in", [])
    content = bytearray(file.read_bytes())
    where = pq.ParquetFile(file).metadata.row_group(3).column(2).data_page_offset
    content[where : where + 64] = bytes(64)
    file.write_bytes(content)
    done = import_pairs(model, file, tmp_path / "out")
    assert done.exit_code == 2 and "train.parquet cannot be read as parquet" in done.stderr


def without(parquet: Path, column: str) -> None:
    pq.write_table(pq.read_table(parquet).drop_columns([column]), parquet)


FAR = ((0, 3.0), (1, 7.0))
"""Labels that are none."""


def with_column(parquet: Path, name: str, values: pa.Array) -> None:
    table = pq.read_table(parquet)
    if name in table.column_names:
        table = table.drop_columns([name])
    pq.write_table(table.append_column(name, values), parquet)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda file: file.unlink(), "There is no parquet file at"),
        (lambda file: file.write_bytes(b"half a fi"), "cannot be read as parquet"),
        (lambda file: without(file, "label_0"), "has no column label_0"),
        (lambda file: with_column(file, "source", pa.array([b"self"] * 6)), "column source has to hold text"),
        (lambda file: with_column(file, "caption", pa.array(range(6))), "column caption has to hold text"),
        (lambda file: with_column(file, "label_1", pa.array(["1"] * 6)), "label_1 has to hold numbers"),
        (
            lambda file: [with_column(file, f"label_{n}", pa.array([1.0, label] * 3)) for n, label in FAR],
            "row 1: label_0 is 3.0 and label_1 7.0. Labels lie between 0 and 1",
        ),
    ],
    ids=["none", "broken", "column", "source", "caption", "label", "labels"],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(model, tmp_path, spoil, sentence):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in/train.parquet"
    write_parquet(file, rows=6, noise_seed=0, row_group_size=6, ties=False)
    spoil(file)
    done = import_pairs(model, tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 2 and sentence in done.stderr
    assert len(sentences(done)) == 1


def test_images_are_encoded_at_the_size_that_was_asked_for(model, parquet, out, tmp_path):
    assert import_pairs(model, parquet, tmp_path / "out", "--share", 0.1, "--size", 16, 24).exit_code == 0
    backbone = backbones.load(ModelRef(source=str(model)))
    shape = backbone.latent_shape((16, 24))
    for folder, own in ((tmp_path / "out", shape), (out, backbone.latent_shape(None))):
        assert {load_file(pair.winner.file)["latents"].shape[1:] for pair in imported(folder)} == {own}
    other = import_pairs(model, parquet, tmp_path / "out", "--share", 0.1)
    assert other.exit_code == 2 and "it differs in size" in other.stderr


def test_a_size_that_the_model_cannot_have_is_refused_before_the_folder_is_taken(model, parquet, tmp_path):
    done = import_pairs(model, parquet, tmp_path / "out", "--size", 15, 24)
    assert done.exit_code == 2 and "must be multiples of 4, got 15 x 24" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDNN_STATUS_ALLOC_FAILED")]
)
def test_memory_that_runs_out_is_one_sentence(model, parquet, tmp_path, monkeypatch, error):
    asked = []

    def encode(self, images, size=None):
        asked.append(len(images))
        raise error

    monkeypatch.setattr(PipelineBackbone, "encode", encode)
    done = import_pairs(model, parquet, tmp_path / "out")
    assert done.exit_code == 2 and asked == [2]
    assert "Memory ran out" in done.stderr and "Take a smaller --size" in done.stderr
    assert len(sentences(done)) == 1


def test_pairs_of_two_sizes_are_refused_before_a_step_is_trained(model, parquet, out, tmp_path):
    assert import_pairs(model, parquet, tmp_path / "out", "--share", 0.1, "--size", 16, 24).exit_code == 0
    small = imported(tmp_path / "out")[0].model_copy(update={"id": "small"})
    request = TrainRequest(model=ModelRef(source=str(model)), lora=Lora(rank=2))
    folder = RunFolder.create(tmp_path / "run", request, pairs=[*imported(out), small])
    sentence = (
        r"pair small are 4 x 4 x 6, those of the images to draw 4 x 8 x 8, .* Import pairs with the --size"
    )
    with pytest.raises(ValueError, match=sentence):
        execute(folder)
    assert not folder.metrics()


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_that_is_none_is_refused(model, parquet, tmp_path, share):
    done = import_pairs(model, parquet, tmp_path / "out", "--share", share)
    assert done.exit_code == 2 and "above 0 and at most 1" in done.stderr


def test_a_lot_that_draws_nothing_is_said(model, parquet, tmp_path):
    done = import_pairs(model, parquet, tmp_path / "out", "--share", 1e-9)
    assert done.exit_code == 2 and "Give a larger --share" in done.stderr
