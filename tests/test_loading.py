"""Where models come from: folders, single files, and a hub, which here is a server of the test's own."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from safetensors.torch import load_file, save_file
from tiny_families import (
    DIFFUSERS_FILE,
    build_flux,
    build_sd3,
    build_sdxl,
    build_stable_diffusion,
    write_sd3_file,
    write_sdxl_file,
    write_single_file,
)
from transformers import CLIPTextModel

from sail import backbones, progress
from sail.backbones import Backbone, loading
from sail.export import model_card
from sail.model_ref import ModelRef
from sail.progress import Progress
from sail.requests import ExportRequest
from sail.runfolder import RunFolder, Stopped

COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return build_stable_diffusion(tmp_path_factory.mktemp("loading") / "tiny")


def load(source: object, revision: str | None = None) -> Backbone:
    return backbones.load(ModelRef(source=str(source), revision=revision))


def refusal(source: object, revision: str | None = None) -> str:
    with pytest.raises(ValueError) as error:
        load(source, revision)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_same_model(one: Backbone, other: Backbone) -> None:
    for model in (one, other):
        # How a product is rounded hangs on where weights lie in memory, and those of a file lie as in it.
        for part in model._pipeline.components.values():
            for parameter in part.parameters() if isinstance(part, torch.nn.Module) else ():
                parameter.data = parameter.data.clone()
    encoded = one.encode_prompts(["a red fox"])
    latents, timesteps = torch.randn(1, 4, 4, 6), torch.tensor([500])
    assert torch.equal(encoded["prompt_embeds"], other.encode_prompts(["a red fox"])["prompt_embeds"])
    for ask in (
        lambda model: model.predict(latents, timesteps, encoded),
        lambda model: model.decode(latents),
    ):
        assert torch.equal(ask(one), ask(other))


def in_half(weights: Path) -> Path:
    return weights.rename(weights.with_name(weights.name.replace(".", ".fp16.", 1)))


def without(weights: Path, part: str) -> str:
    """Take the first weight with `part` in its name out of a file; its name."""
    tensors = load_file(weights)
    name = next(name for name in sorted(tensors) if part in name)
    del tensors[name]
    save_file(tensors, weights)
    return name


# Folders


def test_weights_that_are_pickles_are_refused(tiny, tmp_path, capfd):
    folder = shutil.copytree(tiny, tmp_path / "model")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load(tiny).denoiser.state_dict(), weights.with_suffix(".bin"))
    weights.unlink()
    said = refusal(folder)
    assert "cannot be loaded as a StableDiffusionPipeline" in said and "in safetensors files" in said
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [["m.evil", "Scheduler"], ["diffusers", None], ["os"]])
def test_a_part_of_a_library_of_its_own_is_never_imported(single_file, monkeypatch, kind):
    beside = single_file.with_suffix("")
    (beside / "evil.py").write_text("raise SystemExit('This ran.')")
    monkeypatch.syspath_prepend(beside.parent)
    index = json.loads((beside / "model_index.json").read_text())
    kind = [kind[0].replace("m.", f"{beside.name}."), *kind[1:]]
    (beside / "model_index.json").write_text(json.dumps({**index, "scheduler": kind}))
    with pytest.raises(ValueError, match="classes of diffusers and transformers alone"):
        backbones.load(ModelRef(source=str(single_file)))


@pytest.mark.parametrize("broken", ["text_encoder/model.safetensors", "vae/config.json", "model_index.json"])
def test_a_folder_with_a_broken_file_is_refused_in_one_sentence(tiny, tmp_path, broken):
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / broken).write_bytes(b"half a fi")
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_a_folder_with_a_weight_missing_is_refused(tiny, tmp_path, part):
    folder = shutil.copytree(tiny, tmp_path / "model")
    gone = without(
        next((folder / part).glob("*.safetensors")), "layer_norm2" if part != "unet" else "conv_in"
    )
    assert f"{part} lacks 1 of its weights, {gone}. All its parts must be there" in refusal(folder)


@pytest.mark.parametrize("parts", [["unet"], ["text_encoder"], ["unet", "vae", "text_encoder"]])
def test_parts_that_a_folder_has_in_half_precision_alone_are_read_so(tiny, tmp_path, parts):
    folder = shutil.copytree(tiny, tmp_path / "model")
    for part in ("unet", "vae", "text_encoder"):
        weights = next((folder / part).glob("*.safetensors"))
        if part in parts:
            in_half(weights)
        else:
            # Both are there: the better one is read.
            in_half(Path(shutil.copy(weights, tmp_path / weights.name))).rename(
                folder / part / weights.name.replace(".", ".fp16.")
            ).write_bytes(b"half")
    assert_same_model(load(tiny), load(folder))


# Single files


@pytest.fixture
def single_file(tiny, tmp_path) -> Path:
    """A checkpoint, and beside it the configuration and the weights of the one part that it lacks."""
    file = write_single_file(tiny, tmp_path / "one.safetensors")

    def needless(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name.endswith(".safetensors") and Path(folder).name != "vae"]

    shutil.copytree(tiny, tmp_path / "one", ignore=needless)
    return file


def test_a_single_file_is_the_same_model_as_its_folder(tiny, single_file):
    assert_same_model(load(tiny), load(single_file))


def test_an_sdxl_in_a_single_file_is_the_same_model_as_its_folder(tmp_path):
    # Of another width: by it diffusers tells the second text encoder from the first.
    folder = build_sdxl(tmp_path / "folder", second_width=32)
    file = write_sdxl_file(folder, tmp_path / "one.safetensors")
    only_configured = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(folder, tmp_path / "one", ignore=only_configured)
    whole, one = load(folder), load(file)
    assert_same_model(whole, one)
    pooled = [model.encode_prompts(["a red fox"])["pooled_prompt_embeds"] for model in (whole, one)]
    assert torch.equal(*pooled)


def test_a_single_file_whose_configuration_cannot_be_had_says_where_to_put_it(single_file):
    shutil.rmtree(single_file.with_suffix(""))
    said = refusal(single_file)
    assert "one.safetensors brings no configuration" in said
    assert f"into the folder {single_file.with_suffix('')}" in said and "stable-diffusion-v1-5" in said


def test_a_part_that_a_single_file_lacks_is_asked_for(single_file):
    next((single_file.with_suffix("") / "vae").glob("*.safetensors")).unlink()
    assert f"belong, with their weights, into {single_file.with_suffix('')}" in refusal(single_file)


def test_the_text_encoder_that_a_single_file_lacks_is_read_from_the_folder_beside_it(tiny, single_file):
    write_single_file(tiny, single_file, encoder=False)
    beside = single_file.with_suffix("") / "text_encoder"
    assert f"belong, with their weights, into {single_file.with_suffix('')}" in refusal(single_file)
    CLIPTextModel.from_pretrained(tiny / "text_encoder").save_pretrained(beside, max_shard_size="8KB")
    assert (beside / "model.safetensors.index.json").is_file()
    assert_same_model(load(tiny), load(single_file))


def test_a_flux_file_of_the_transformer_alone_takes_the_rest_from_the_folder_beside_it(tmp_path):
    folder = build_flux(tmp_path / "flux")
    file = Path(shutil.copy(folder / "transformer" / DIFFUSERS_FILE, tmp_path / "flux.safetensors"))
    flux = load(folder)
    (folder / "transformer" / DIFFUSERS_FILE).unlink()
    assert_same_model(flux, load(file))


def test_an_sd3_file_with_a_t5_takes_the_clips_from_the_folder_beside_it(tmp_path):
    folder = build_sd3(tmp_path / "sd3")
    file = write_sd3_file(folder, tmp_path / "sd3.safetensors")
    sd3 = load(folder)
    for part, weights in {"transformer": DIFFUSERS_FILE, "text_encoder_3": "model.safetensors"}.items():
        (folder / part / weights).unlink()
    assert_same_model(sd3, load(file))


def test_a_single_file_with_a_weight_missing_is_refused(single_file):
    without(single_file, "layer_norm2")
    said = refusal(single_file)
    assert "text_encoder lacks 1 of its weights, " in said and "layer_norm2" in said
    assert f"belong, with their weights, into {single_file.with_suffix('')}" in said


def test_a_weight_missing_in_the_folder_beside_a_single_file_is_missed(tiny, single_file):
    write_single_file(tiny, single_file, encoder=False)
    beside = single_file.with_suffix("") / "text_encoder/model.safetensors"
    gone = without(Path(shutil.copy(tiny / "text_encoder/model.safetensors", beside)), "layer_norm2")
    assert f"text_encoder lacks 1 of its weights, {gone}." in refusal(single_file)


def test_the_autoencoder_beside_a_single_file_is_read_in_place_of_its_own(tiny, single_file):
    write_single_file(with_another_autoencoder(tiny, single_file.parent), single_file, vae=True)
    assert_same_model(load(tiny), load(single_file))


def with_another_autoencoder(tiny: Path, root: Path) -> Path:
    other = shutil.copytree(tiny, root / "other")
    weights = other / "vae" / DIFFUSERS_FILE
    save_file({name: 1.25 * tensor for name, tensor in load_file(weights).items()}, weights)
    return other


def test_a_single_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no header, no weights")
    assert "x.safetensors cannot be read as safetensors" in refusal(tmp_path / "x.safetensors")
    (tmp_path / "x.ckpt").write_bytes(b"pickle")
    assert "Convert it to safetensors" in refusal(tmp_path / "x.ckpt")


def test_the_model_card_reads_a_single_file_with_its_own_pipeline(single_file):
    request = ExportRequest(model=ModelRef(source=str(single_file)), adapter="0" * 64)
    card = model_card(request, is_unet=True)
    assert 'StableDiffusionPipeline.from_single_file("path/to/one.safetensors")' in card
    assert str(single_file.parent) not in card


# The hub


class Hub(ThreadingHTTPServer):
    """As much of a model hub as a download asks for: a listing, files, and refusals with its error codes."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder = folder
        self.fetched: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        path = self.path.split("?")[0]
        for name, (status, code) in {
            "org/gated": (403, "GatedRepo"),
            "org/none": (401, "RepoNotFound"),
            OTHER_COMMIT: (404, "RevisionNotFound"),
        }.items():
            if name in path:
                return self._send(status, b"{}", {"X-Error-Code": code}, body=body)
        if path.startswith("/api/models/org/model/tree/"):
            return self._send(200, json.dumps(self._listing()).encode(), {}, body=body)
        file = path.removeprefix(f"/org/model/resolve/{COMMIT}/")
        content = (self.server.folder / file).read_bytes()
        if body:
            self.server.fetched.append(file)
        return self._send(200, content, {"ETag": f'"{hash(file):x}"', "X-Repo-Commit": COMMIT}, body=body)

    def _listing(self) -> list[dict[str, object]]:
        files = [file for file in sorted(self.server.folder.rglob("*")) if file.is_file()]
        return [
            {
                "type": "file",
                "path": str(file.relative_to(self.server.folder)),
                "size": file.stat().st_size,
                "oid": f"{index:040x}",
            }
            for index, file in enumerate(files)
        ]

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch) -> Iterator[Hub]:
    repository = shutil.copytree(tiny, tmp_path / "repository")
    shutil.copy(
        repository / "unet/diffusion_pytorch_model.safetensors", repository / "all_in_one.safetensors"
    )
    (repository / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (repository / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half")
    server = Hub(repository)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    huggingface_hub.close_session()
    yield server
    server.shutdown()
    server.server_close()
    huggingface_hub.close_session()


def test_a_hub_model_is_fetched_once_at_its_revision_and_only_what_it_needs(hub, tiny, monkeypatch):
    assert_same_model(load(tiny), load("org/model", COMMIT))
    wanted = {str(file.relative_to(tiny)) for file in tiny.rglob("*") if file.is_file()}
    assert set(hub.fetched) == wanted and len(hub.fetched) == len(wanted)
    assert hub.tokens == {"Bearer hf_of_the_test"}
    # From its cache from then on, without a network.
    hub.fetched.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    load("org/model", COMMIT)
    assert hub.fetched == []
    assert "not whole on this machine" in refusal("org/model", OTHER_COMMIT)


def test_parts_that_the_hub_has_in_half_precision_alone_are_fetched_so(hub, tiny, monkeypatch):
    (hub.folder / "unet/diffusion_pytorch_model.fp16.safetensors").unlink()
    halves = {
        str(in_half(next((hub.folder / part).glob("*.safetensors"))).relative_to(hub.folder))
        for part in ("unet", "text_encoder")
    }
    in_half(Path(shutil.copy(hub.folder / "vae" / DIFFUSERS_FILE, hub.folder / "vae/x.safetensors")))
    assert_same_model(load(tiny), load("org/model", COMMIT))
    assert {file for file in hub.fetched if file.endswith(".safetensors")} == {
        *halves,
        f"vae/{DIFFUSERS_FILE}",
    }
    hub.fetched.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    load("org/model", COMMIT)
    assert hub.fetched == []


@pytest.fixture
def hub_knows(hub, monkeypatch) -> None:
    """The configuration of a single file without a folder beside it is that of the tests' own hub."""
    known = {"pretrained_model_name_or_path": "org/model"}
    monkeypatch.setattr(loading, "fetch_diffusers_config", lambda _: known)


@pytest.mark.usefixtures("hub_knows")
def test_a_single_files_own_autoencoder_is_read_whatever_of_the_hubs_was_fetched(tiny, tmp_path):
    other = with_another_autoencoder(tiny, tmp_path)
    file = write_single_file(other, tmp_path / "one.safetensors", vae=True)
    bare = write_single_file(other, tmp_path / "bare.safetensors")
    assert_same_model(load(other), load(file, COMMIT))
    load("org/model", COMMIT)
    assert_same_model(load(other), load(file, COMMIT))
    # One that has none of its own is still helped out.
    assert_same_model(load(tiny), load(bare, COMMIT))


OLD_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""As Stable Diffusion 1.5 has it on the hub: of a prediction it says nothing."""
EULER = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon", "timestep_spacing": "leading"}
"""What SDXL's says beside the betas."""


@pytest.mark.usefixtures("hub_knows")
@pytest.mark.parametrize("scheduler", [OLD_SCHEDULER, {**OLD_SCHEDULER, **EULER}])
def test_a_single_file_says_itself_that_it_predicts_velocity(hub, tiny, tmp_path, scheduler):
    (hub.folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    index = json.loads((hub.folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    (hub.folder / "model_index.json").write_text(json.dumps(index))
    latents, noise, timesteps = torch.randn(1, 4, 4, 6), torch.randn(1, 4, 4, 6), torch.tensor([999])
    found = {}
    for markers in ((), ("v_pred",), ("v_pred", "ztsnr")):
        file = write_single_file(tiny, tmp_path / "one.safetensors", vae=True, markers=markers)
        found[markers] = load(file, COMMIT)
    plain, velocity, zero = found.values()
    assert torch.equal(plain.target(latents, noise, timesteps), noise)
    assert not torch.equal(velocity.target(latents, noise, timesteps), noise)
    assert torch.equal(velocity.noisy(latents, noise, timesteps), plain.noisy(latents, noise, timesteps))
    # No signal is left at the end, where drawing begins.
    assert torch.equal(zero.noisy(latents, noise, timesteps), noise)
    assert torch.equal(zero.target(latents, noise, timesteps), -latents)
    first = [model.solver("auto", 4, (4, 4, 6)).timesteps[0] for model in (plain, velocity, zero)]
    assert first[0] == first[1] and first[2] == 999
    solver = zero.solver("auto", 4, (4, 4, 6))
    assert solver.config.prediction_type == "v_prediction"
    assert torch.isfinite(solver.step(noise, 999, noise).prev_sample).all()


def test_the_folder_beside_a_single_file_knows_better_what_it_predicts(tiny, single_file):
    write_single_file(tiny, single_file, markers=("v_pred",))
    noise = torch.randn(1, 4, 4, 6)
    assert torch.equal(load(single_file).target(torch.randn(1, 4, 4, 6), noise, torch.tensor([500])), noise)


@pytest.mark.usefixtures("hub_knows")
def test_a_single_stable_diffusion_2_is_asked_for_its_configuration(tiny, tmp_path):
    file = write_single_file(tiny, tmp_path / "one.safetensors", vae=True)
    told = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({**load_file(file), told: torch.zeros(1, 1024)}, file)
    said = refusal(file, COMMIT)
    assert (
        "noise" in said and "velocity" in said and f"into the folder {file.with_suffix('')} beside it" in said
    )
    save_file({**load_file(file), "v_pred": torch.zeros(0)}, file)
    assert loading.config_folder(file, COMMIT).name == COMMIT


def test_a_run_says_how_far_its_download_is(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "MB", 1000)
    run, shown = RunFolder(tmp_path), []
    monkeypatch.setattr(run, "publish_snapshot", lambda now: shown.append((now.stage, now.step, now.total)))
    model = ModelRef(source="org/model", revision=COMMIT)
    backbones.load(model, told=Progress(run, min_interval_s=0).download)
    fetched = sum((hub.folder / file).stat().st_size for file in hub.fetched)
    assert shown[-1] == ("download (MB)", fetched // 1000, fetched // 1000) and fetched > 100_000
    assert [step for _, step, _ in shown] == sorted(step for _, step, _ in shown)


def test_a_stop_ends_a_download_that_swallows_it(monkeypatch):
    """As Xet's does, whose own thread counts the bytes."""
    ended = []
    monkeypatch.setattr(loading, "abort_xet_session", lambda: ended.append("session"))

    def download(*_, tqdm_class=None, **__):
        with suppress(Stopped):
            tqdm_class(name="huggingface_hub.snapshot_download", total=10, disable=True).update(5)
        raise RuntimeError("Operation cancelled" if ended else "It went on.")

    def told(*_):
        raise Stopped("Stopped on request.")

    monkeypatch.setattr(loading, "snapshot_download", download)
    with pytest.raises(Stopped):
        loading.from_hub("org/model", COMMIT, loading.CONFIGS, told)
    with pytest.raises(RuntimeError, match="cancelled"):
        loading.from_hub("org/model", COMMIT, loading.CONFIGS, lambda *_: None)


def test_a_stop_is_heard_during_a_download(hub, tmp_path):
    run = RunFolder(tmp_path)
    run.request_stop()
    model = ModelRef(source="org/model", revision=COMMIT)
    with pytest.raises(Stopped):
        backbones.load(model, told=Progress(run).download)
    run.clear_stop()
    backbones.load(model, told=Progress(run).download)


@pytest.mark.parametrize(
    ("source", "revision", "sentence"),
    [
        ("org/gated", COMMIT, "is gated. Accept its terms on its page at the hub and log in"),
        ("org/none", COMMIT, "The hub has no model org/none, or shows it to members only"),
        ("org/model", OTHER_COMMIT, f"org/model has no revision {OTHER_COMMIT}"),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_way_out(hub, source, revision, sentence):
    assert sentence in refusal(source, revision)


def test_without_a_network_a_model_that_was_not_fetched_is_refused():
    assert "the hub could not be asked. Allow the download" in refusal("org/model", COMMIT)


def test_bars_of_downloads_are_left_as_they_were(tmp_path):
    before = are_progress_bars_disabled()
    load(build_flux(tmp_path / "flux"))
    assert are_progress_bars_disabled() == before
