"""The routes and what stands before them: a real app, requests as a browser or an enemy would send them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from annotating import (
    PROMPTS,
    drawn,
    fake_runner,
    make_model,
    make_store,
    new_uuid,
    run_now,
    train_round_0,
    wait_for,
)
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.numpy import save_file
from sqlite_utils import Database
from starlette.websockets import WebSocketDisconnect

from annotator import jobs, models, preferences
from annotator.guard import Guard
from annotator.launcher import Launcher
from annotator.projects import Projects, open_projects
from annotator.routes import export, file_of
from annotator.server import build, mount_page
from annotator.store import DATABASE, Displaced, Store
from annotator.store.people import made_up
from annotator.tabs.export import MARKUP
from benchmarks.running_app import start_app
from sail.config import MAX_SIDE
from sail.model_ref import ModelRef
from sail.runfolder import ADAPTER_FILE, MERGED_FOLDER, RunFolder

ORIGIN = "http://127.0.0.1:7860"


@pytest.fixture
def projects(tmp_path: Path) -> Iterator[Projects]:
    store = make_store(tmp_path / "all" / "p")
    drawn(store, 6)
    store.close()
    make_model(tmp_path / "starter")
    opened = Projects(tmp_path / "all", default="p", starter=tmp_path / "starter", runner=fake_runner())
    yield opened
    opened.close()


@pytest.fixture
def client(projects: Projects) -> TestClient:
    client = TestClient(
        build(projects), base_url=ORIGIN, headers={"origin": ORIGIN}, raise_server_exceptions=False
    )
    client.cookies.set("sail_person", "ann")
    return client


@pytest.fixture
def store(projects: Projects) -> Store:
    return projects.get("p").store


def next_pairs(client: TestClient) -> list[dict[str, str]]:
    return list(client.post("/api/projects/p/pairs/next", json={}).json()["pairs"])


def answer(pair: str, value: str = "left", uid: str | None = None) -> dict[str, Any]:
    return {"uuid": uid or new_uuid(), "pair": pair, "value": value, "elapsed_ms": 800}


def send(client: TestClient, *answers: dict[str, Any]) -> httpx.Response:
    return client.post("/api/projects/p/labels", json={"answers": list(answers)})  # type: ignore[return-value]


# Labelling


def test_a_label_is_acknowledged_and_counted(client: TestClient) -> None:
    (first, *_) = next_pairs(client)
    own = answer(first["id"])
    said = send(client, own).json()
    assert said["acknowledged"] == [own["uuid"]]
    assert said["labels"]["labelled"] == 1
    assert first["id"] not in [pair["id"] for pair in next_pairs(client)]


def test_ties_count_as_held_where_the_settings_hold_them(client: TestClient, store: Store) -> None:
    (first, *_) = next_pairs(client)
    assert send(client, answer(first["id"], "tie")).json()["labels"]["held_ties"] == 0
    jobs.change_settings(store, {"loss": {"hold_ties": 0.5}}, by="ann")
    assert client.get("/api/projects/p/status").json()["labels"]["held_ties"] == 1


def test_the_same_answer_sent_by_many_at_once_is_one_label(client: TestClient, store: Store) -> None:
    (first, *_) = next_pairs(client)
    own = answer(first["id"])
    threads = [threading.Thread(target=send, args=(client, own)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.label_history()) == 1


def test_undo_is_sent_like_an_answer(client: TestClient, store: Store) -> None:
    (first, *_) = next_pairs(client)
    own = answer(first["id"])
    undo = {"uuid": new_uuid(), "pair": first["id"], "value": "undo", "undoes": own["uuid"]}
    assert send(client, own, undo).json()["labels"]["labelled"] == 0
    assert next_pairs(client)[0]["id"] == first["id"]


def test_after_a_reload_undo_knows_the_last_labels(client: TestClient) -> None:
    (first, *_) = next_pairs(client)
    own = answer(first["id"])
    send(client, own)
    past = client.post("/api/projects/p/pairs/next", json={}).json()["past"]
    assert [(one["uuid"], one["pair"]["id"]) for one in past] == [(own["uuid"], first["id"])]


def test_a_label_for_a_pair_never_shown_is_refused_with_a_reason(client: TestClient) -> None:
    own = answer("made-up")
    assert send(client, own).json()["refused"] == {own["uuid"]: "This pair was never shown to you."}


def test_what_was_said_of_another_project_of_that_name_is_not_taken(
    client: TestClient, projects: Projects, store: Store, tmp_path: Path
) -> None:
    identity = client.get("/api/projects/p/identity").json()["id"]
    other = make_store(tmp_path / "elsewhere" / "p")
    assert other.identity != identity == projects.get("p").store.identity
    (first, *_) = next_pairs(client)
    own = answer(first["id"])
    elsewhere = {"x-sail-project": other.identity}
    refused = client.post("/api/projects/p/labels", json={"answers": [own]}, headers=elsewhere)
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("Another project that is called p answers here")
    assert client.get("/api/projects/p/status", headers=elsewhere).status_code == 409
    assert store.counts().labelled == 0
    # What outlives a page has no headers.
    for of, labelled in ((other.identity, 0), (identity, 1)):
        client.post(f"/api/projects/p/labels?of={of}", json={"answers": [own]})
        assert store.counts().labelled == labelled
    other.close()


def test_a_copy_of_a_project_is_the_same_one_to_a_page(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.folder, tmp_path / "copy" / "p")
    copy = Store(tmp_path / "copy" / "p")
    assert copy.identity == store.identity
    copy.close()


def test_each_visit_begins_the_year_in_which_a_browser_is_known_anew(client: TestClient) -> None:
    said = client.get("/api/projects/p/identity").headers["set-cookie"]
    assert said.startswith("sail_person=ann;") and "Max-Age=31536000" in said


def test_a_browser_without_a_name_is_told_so(client: TestClient) -> None:
    client.cookies.clear()
    response = client.post("/api/projects/p/pairs/next", json={})
    assert response.status_code == 422
    assert "has not said who you are" in response.json()["detail"]


def test_images_have_opaque_addresses_and_are_kept_by_the_browser(client: TestClient) -> None:
    (first, *_) = next_pairs(client)
    assert "propose" not in first["left"] and "0000" not in first["left"]
    response = client.get(first["left"])
    assert response.headers["content-type"] == "image/png"
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert client.get("/api/projects/p/images/nothing").status_code == 404


def test_a_pair_is_withdrawn_only_where_a_file_is_at_fault(client: TestClient, store: Store) -> None:
    pair, other = next_pairs(client)[:2]
    report = "/api/projects/p/pairs/broken"
    assert client.post(report, json={"pair": pair["id"]}).json() == {"withdrawn": None}
    send(client, answer(pair["id"]))
    for one in (pair, other):
        store.image_file(one["left"].rsplit("/", 1)[1]).write_bytes(b"no image")
        for _ in range(2):
            assert "cannot be read" in client.post(report, json={"pair": one["id"]}).json()["withdrawn"]
    assert not {pair["id"], other["id"]} & {one["id"] for one in next_pairs(client)}
    assert [event["kind"] for event in store.events()].count("pair_withdrawn") == 2
    # What was said of a pair before stays, and so does the pair among those that are counted.
    counts = store.counts()
    assert (counts.drawn, counts.withdrawn, counts.labelled) == (len(store.pair_states()) - 1, 2, 1)
    assert client.post(report, json={"pair": "nobody's"}).status_code == 404


def test_an_image_is_handed_to_no_other_program(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Any] = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *given, **_: handed.append(given))
    (pair, *_) = next_pairs(client)
    Image.new("RGB", (8, 8)).save(store.image_file(pair["left"].rsplit("/", 1)[1]), format="EPS")
    said = client.post("/api/projects/p/pairs/broken", json={"pair": pair["id"]}).json()
    assert "cannot be read" in said["withdrawn"] and handed == []


def test_an_image_that_would_fill_the_memory_is_not_decoded(client: TestClient, store: Store) -> None:
    (pair, *_) = next_pairs(client)
    Image.new("1", (MAX_SIDE + 1, 8)).save(store.image_file(pair["left"].rsplit("/", 1)[1]), format="PNG")
    said = client.post("/api/projects/p/pairs/broken", json={"pair": pair["id"]}).json()
    assert said["withdrawn"].endswith(f"more than {MAX_SIDE} pixels across.")


def test_no_pair_is_withdrawn_while_a_whole_disk_is_gone(client: TestClient, store: Store) -> None:
    (pair, *_) = next_pairs(client)
    runs, away = store.folder / "runs", store.folder / "away"
    runs.rename(away)
    report = "/api/projects/p/pairs/broken"
    assert client.post(report, json={"pair": pair["id"]}).json() == {"withdrawn": None}
    away.rename(runs)
    assert pair["id"] in {one["id"] for one in next_pairs(client)}
    store.image_file(pair["left"].rsplit("/", 1)[1]).unlink()
    assert "is gone" in client.post(report, json={"pair": pair["id"]}).json()["withdrawn"]


def test_a_link_in_place_of_an_image_is_refused(client: TestClient, store: Store, tmp_path: Path) -> None:
    (first, *_) = next_pairs(client)
    file = store.image_file(first["left"].rsplit("/", 1)[1])
    secret = tmp_path / "secret.png"
    file.rename(secret)
    file.symlink_to(secret)
    assert client.get(first["left"]).status_code == 403


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image", "../../elsewhere"),
        ("image", "../../project.db"),
        ("image", "request.json"),
        ("image", "candidates/00000.json"),
        ("folder", "../elsewhere"),
        ("folder", "{}"),
    ],
)
def test_a_database_names_no_file_outside_its_run_folders(
    client: TestClient, store: Store, column: str, value: str
) -> None:
    import pyarrow.parquet as pq

    (first, *_) = next_pairs(client)
    send(client, answer(first["id"]))
    elsewhere = shutil.copytree(store.run_folder(store.runs()[0]), store.folder / "elsewhere")
    if value == "../../elsewhere":
        value += f"/candidates/{store.image_file(first['left'].rsplit('/', 1)[1]).name}"
    table = "candidates" if column == "image" else "runs"
    database = Database(store.folder / DATABASE)
    with database.conn:
        database.execute(f"update {table} set {column} = ?", [value.format(elsewhere)])
    refused = client.get(first["left"])
    assert refused.status_code == 403 and refused.json()["detail"].endswith("is left alone.")
    file = pq.ParquetFile(io.BytesIO(client.get("/api/projects/p/preferences.parquet").content))
    assert file.metadata.metadata[b"left_out"] == b"1" and file.metadata.num_rows == 0


def test_a_database_names_nothing_beside_the_run_folders_where_runs_is_a_link(
    client: TestClient, store: Store, tmp_path: Path
) -> None:
    (first, *_) = next_pairs(client)
    send(client, answer(first["id"]))
    # As somebody keeps it on a larger disk, or as a project that was sent has it: on a home.
    (store.folder / "runs").rename(tmp_path / "home")
    (store.folder / "runs").symlink_to(tmp_path / "home")
    assert client.get(first["left"]).status_code == 200
    (tmp_path / "home" / ".ssh").mkdir()
    (tmp_path / "home" / ".ssh" / "id_rsa").write_text("a secret")
    database = Database(store.folder / DATABASE)
    with database.conn:
        database.execute("update runs set folder = '.ssh'")
        database.execute("update candidates set image = 'id_rsa'")
    refused = client.get(first["left"])
    assert refused.status_code == 403 and "No run folder is called '.ssh'" in refused.json()["detail"]
    assert b"a secret" not in client.get("/api/projects/p/preferences.parquet").content


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("latents", "../../../secret"),
        ("latents", "candidates/../../../secret.safetensors"),
        ("latents", "{}"),
        ("folder", "../elsewhere"),
        ("folder", "{}"),
    ],
)
def test_nothing_is_learned_from_a_file_that_is_none_of_a_runs_candidates(
    client: TestClient, store: Store, column: str, value: str
) -> None:
    for pair in next_pairs(client):
        send(client, answer(pair["id"]))
    (secret := store.folder.parent / "secret").write_bytes(b"a secret")
    table = "candidates" if column == "latents" else "runs"
    database = Database(store.folder / DATABASE)
    with database.conn:
        database.execute(f"update {table} set {column} = ?", [value.format(secret)])
    for refused in (
        client.get("/api/projects/p/mixup"),
        client.post("/api/projects/p/runs", json={"job": "train"}),
    ):
        assert refused.status_code == 403 and "nothing is learned from it" in refused.json()["detail"]
        assert str(secret.parent) not in refused.json()["detail"]
    assert [run.job for run in store.runs()] == ["draw"]


@pytest.mark.parametrize(
    "path", ["export/../../secret", "../secret", "{}", "export/link", "export/../request.json"]
)
def test_an_export_ships_no_file_that_is_not_in_it(client: TestClient, store: Store, path: str) -> None:
    run = jobs.draw(store, 1, by="ann")
    number = run.id + 1
    folder = store.folder / "runs" / f"{number:04d}-export"
    (folder / "export").mkdir(parents=True)
    secret = folder.parent / "secret"
    for file in (secret, folder / "secret", folder / "request.json"):
        file.write_bytes(b"a secret")
    (folder / "export" / "link").symlink_to(secret)
    store.record_run(number, "export", round_number=0, folder=folder.name, by="ann")
    files = [{"path": path.format(secret), "bytes": 8, "sha256": "0"}]
    RunFolder(folder).publish_result({"files": files})
    for address in (f"{number}.zip", f"{number}/0"):
        refused = client.get(f"/api/projects/p/export/{address}")
        assert refused.status_code == 403 and "lies outside" in refused.json()["detail"]
    assert not list(store.folder.glob(".export-*"))


def test_names_are_told_and_ids_are_not(client: TestClient, store: Store) -> None:
    store.show_pairs([pair["id"] for pair in next_pairs(client)], to="person-12345678")
    client.cookies.set("sail_person", "person-12345678")
    nameless = client.post("/api/projects/p/pairs/next", json={}).json()
    client.cookies.set("sail_person", "ann")
    assert nameless["holders"] == [made_up("ann")] == ["Sunny Crane"]
    assert client.post("/api/projects/p/name", json={"name": "Ann"}).json() == {"name": "Ann"}
    client.cookies.set("sail_person", "person-12345678")
    said = client.post("/api/projects/p/pairs/next", json={}).json()
    assert (said["holders"], said["with_others"], said["name"]) == (["Ann"], 6, None)
    refused = client.post("/api/projects/p/name", json={"name": "ann"})
    assert refused.status_code == 422 and "Choose another name" in refused.json()["detail"]


def test_an_order_is_an_event_with_its_author(client: TestClient, store: Store) -> None:
    said = client.post("/api/projects/p/order", json={"order": "uncertain"}).json()
    assert said == {"order": "uncertain", "judged": 0}
    assert [(event["by"], event["payload"]) for event in store.events() if event["kind"] == "order"] == [
        ("ann", {"order": "uncertain"})
    ]
    assert client.post("/api/projects/p/order", json={"order": "best"}).status_code == 422


def test_reasons_go_the_way_of_answers(client: TestClient, store: Store) -> None:
    (first, *_) = next_pairs(client)
    own = answer(first["id"])
    why = {
        "uuid": new_uuid(),
        "pair": first["id"],
        "value": "reasons",
        "of": own["uuid"],
        "reasons": ["colour"],
    }
    assert send(client, own, why).json()["acknowledged"] == [own["uuid"], why["uuid"]]
    assert store.reasons([own["uuid"]]) == {own["uuid"]: (["colour"], "")}
    unknown = {**why, "uuid": new_uuid(), "reasons": ["weather"]}
    assert send(client, unknown).json()["refused"][unknown["uuid"]].startswith("reasons.0 cannot be used")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"value": "reasons", "text": "a fo\ud83e"}, "text has half of a character."),
        ({"value": "reasons", "text": "x" * 501}, "text must have at most 500 characters."),
        ({"value": "perhaps"}, "value"),
    ],
)
def test_an_answer_that_can_be_none_is_refused_and_keeps_back_no_others(
    client: TestClient, store: Store, fault: dict[str, str], sentence: str
) -> None:
    first, second, *_ = next_pairs(client)
    before, faulty, after = answer(first["id"]), {**answer(first["id"]), **fault}, answer(second["id"])
    # As a browser writes it, half of a character too.
    body = json.dumps({"answers": [before, faulty, after]})
    said = client.post("/api/projects/p/labels", content=body, headers={"content-type": "application/json"})
    assert said.json()["acknowledged"] == [before["uuid"], after["uuid"]]
    assert list(said.json()["refused"]) == [faulty["uuid"]]
    assert said.json()["refused"][faulty["uuid"]].startswith(sentence)
    assert store.counts().labelled == 2


def test_what_a_page_of_another_version_sends_stays_with_it(client: TestClient, store: Store) -> None:
    first, second, *_ = next_pairs(client)
    told = {**answer(second["id"]), "weather": "fine"}
    said = send(client, answer(first["id"]), told)
    assert said.status_code == 422 and said.json()["detail"].startswith("weather is not known here")
    assert store.counts().labelled == 0


# Where things stand


def test_an_idle_server_does_not_look_into_gradios_queue_all_the_time(projects: Projects) -> None:
    queue = mount_page(build(projects), projects)._queue
    assert min(queue.sleep_when_free, queue.progress_update_sleep_when_free) >= 1


def test_status_is_not_sent_twice(client: TestClient) -> None:
    first = client.get("/api/projects/p/status")
    again = client.get("/api/projects/p/status", headers={"if-none-match": first.headers["etag"]})
    assert first.json()["next"] == {"name": "label", "round": 0, "seconds": None}
    assert (again.status_code, again.content) == (304, b"")


def test_a_run_that_may_still_answer_a_stop_is_not_ended_over_the_routes(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = jobs.draw(store, 2, by="ann")
    store.record_run_event(run.id, "started", pid=0)
    assert client.post(f"/api/projects/p/runs/{run.id}/stop").json()["overdue"] is False
    refused = client.post(f"/api/projects/p/runs/{run.id}/end")
    assert refused.status_code == 422 and "give it that long to leave" in refused.json()["detail"]
    monkeypatch.setattr("annotator.runs.STOP_PATIENCE_S", 0.0)
    (view, *_) = client.get("/api/projects/p/status").json()["runs"]
    assert view["overdue"] is True
    refused = client.post(f"/api/projects/p/runs/{run.id}/end")
    assert "End it there" in refused.json()["detail"]


def test_a_whole_pipeline_is_told_with_its_folder_and_left_out_of_the_zip(
    client: TestClient, store: Store, root: Path
) -> None:
    train_round_0(store)
    run = run_now(store, jobs.export(store, merged=True, by="ann"))
    told = client.get("/api/projects/p/export").json()
    (exported,) = told["exports"]
    whole = store.run_folder(run) / "export" / MERGED_FOLDER
    assert exported["pipeline"] == {"folder": str(whole), "bytes": len(b"whole weights")}
    assert exported["bytes"] == len(b"weights# card")
    packed = zipfile.ZipFile(io.BytesIO(client.get(f"/api/projects/p/export/{run.id}.zip").content))
    assert packed.namelist() == [f"p-round-0/lora/{ADAPTER_FILE}", "p-round-0/README.md"]
    assert client.get(f"/api/projects/p/export/{run.id}/2").content == b"whole weights"
    assert told["merged_bytes"] is None  # of a model whose weights are nowhere
    store.set_model(ModelRef(source=str(root / "data" / "starter")), download=False, by="ann")
    weights = sum(file.stat().st_size for file in (root / "data" / "starter").glob("*/*.safetensors"))
    told = client.get("/api/projects/p/export").json()["merged_bytes"]
    assert 1.7 * weights < told < 2.1 * weights  # two bytes a weight there


def test_a_round_from_label_to_export_over_the_routes(client: TestClient, projects: Projects) -> None:
    import pyarrow.parquet as pq

    store, base = projects.get("p").store, "/api/projects/p"
    projects.runner.start()
    for pair in next_pairs(client):
        send(client, answer(pair["id"]))
    for body in ({"job": "train"}, {"job": "propose"}):
        run = client.post(f"{base}/runs", json=body).json()
        wait_for(lambda run=run: store.run(run["id"]).what == "done")
    pairs = client.get(f"{base}/review").json()["pairs"]
    reviews = [
        {"uuid": new_uuid(), "self_pair": pair["id"], "decision": "approve" if number else "flip"}
        for number, pair in enumerate(pairs)
    ]
    assert client.post(f"{base}/reviews", json={"answers": reviews}).json()["review"]["flip"] == 1
    plan = client.get(f"{base}/mixup", params={"self_fraction": 0.5}).json()
    assert (plan["human_pairs"], plan["self_pairs"], plan["self_fraction"]) == (6, 3, 0.5)
    run = client.post(f"{base}/runs", json={"job": "train", "self_fraction": 0.5}).json()
    wait_for(lambda: store.run(run["id"]).what == "done")
    detail = client.get(f"{base}/runs/{run['id']}").json()
    assert detail["metrics"][-1]["step"] == 6 and detail["samples"]["steps"] == [0, 6]
    assert client.get(f"{base}/runs/{run['id']}/samples/6/0").headers["content-type"] == "image/png"
    run = client.post(f"{base}/runs", json={"job": "export"}).json()
    wait_for(lambda: store.run(run["id"]).what == "done")
    (exported,) = client.get(f"{base}/export").json()["exports"]
    assert (exported["round"], exported["name"]) == (1, "p-round-1.zip")
    assert client.get(f"{base}/export/{run['id']}/0").content == b"weights"
    assert client.get(f"{base}/export/{run['id']}/{len(exported['files'])}").status_code == 404
    archive = client.get(f"{base}/export/{run['id']}.zip")
    assert "p-round-1.zip" in archive.headers["content-disposition"]
    packed = zipfile.ZipFile(io.BytesIO(archive.content))
    assert packed.read(f"p-round-1/lora/{ADAPTER_FILE}") == b"weights"
    assert packed.read("p-round-1/README.md") == b"# card"
    assert client.get(f"{base}/export/1.zip").status_code == 404
    table = pq.read_table(io.BytesIO(client.get(f"{base}/preferences.parquet").content))
    assert set(table["source"].to_pylist()) == {"human", "self"}
    assert str(table.schema.field("elapsed_ms").type) == "int64"
    (store.run_folder(store.run(run["id"])) / "export" / "README.md").unlink()
    for asked in f"{run['id']}/1", f"{run['id']}.zip":
        gone = client.get(f"{base}/export/{asked}")
        assert gone.status_code == 404
        assert gone.json()["detail"] == "README.md of the export is gone. Export the round anew."
    table = client.get(f"{base}/history.csv")
    assert "p-history.csv" in table.headers["content-disposition"]
    assert table.text.count(",decision in Review,approve,") == len(pairs) - 1
    assert client.get(f"{base}/runs/{10**20}").status_code == 404
    assert client.get(f"{base}/status").json()["current"] == 1


def test_the_preference_table_reads_as_parquet_with_the_public_names(
    client: TestClient, store: Store
) -> None:
    import pandas

    pairs = next_pairs(client)
    send(
        client, answer(pairs[0]["id"], "right"), answer(pairs[1]["id"], "tie"), answer(pairs[2]["id"], "skip")
    )
    table = pandas.read_parquet(io.BytesIO(client.get("/api/projects/p/preferences.parquet").content))
    assert list(table["label_0"]) == [0.0, 0.5] and list(table["label_1"]) == [1.0, 0.5]
    assert list(table["source"]) == ["human", "human"] and set(table["caption"]) <= set(PROMPTS)
    assert table["jpg_0"][0].startswith(b"\x89PNG") and re.fullmatch("[0-9a-f]{16}", table["annotator"][0])


def test_one_file_of_a_project_is_made_at_a_time(
    client: TestClient, projects: Projects, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "/api/projects/p/preferences.parquet"
    begun, going_on, answers = threading.Event(), threading.Event(), []

    def slow(store: Store, file: Path, *, about_people: bool) -> None:
        begun.set()
        going_on.wait(30)

    monkeypatch.setattr(preferences, "write_parquet", slow)
    first = threading.Thread(target=lambda: answers.append(client.get(address).status_code))
    first.start()
    begun.wait(30)
    monkeypatch.setattr(export, "LONGEST_TURN_S", 0.01)
    refused = client.get(address)
    monkeypatch.setattr(export, "LONGEST_TURN_S", 30.0)
    waits = threading.Thread(target=lambda: answers.append(client.get(address).status_code))
    waits.start()
    going_on.set()
    first.join()
    waits.join()
    assert refused.status_code == 429 and refused.json()["detail"].startswith("Another file of p is being")
    assert answers == [200, 200]
    monkeypatch.setattr(preferences, "write_parquet", lambda store, file, **_: 1 / 0)
    assert client.get(address).status_code == 500
    monkeypatch.undo()
    assert client.get(address).status_code == 200


def test_the_preference_table_leaves_out_pairs_whose_images_are_gone_and_counts_them(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(preferences, "GROUP_BYTES", 1)
    pairs = next_pairs(client)
    for pair in pairs:
        send(client, answer(pair["id"]))
    store.image_file(pairs[1]["right"].rsplit("/", 1)[1]).unlink()
    file = pq.ParquetFile(io.BytesIO(client.get("/api/projects/p/preferences.parquet").content))
    assert file.num_row_groups == 5 and file.metadata.metadata[b"left_out"] == b"1"
    table = file.read().to_pandas()
    kept = [pair for pair in pairs if pair is not pairs[1]]
    assert list(table["image_0_uid"]) == [pair["left"].rsplit("/", 1)[1] for pair in kept]
    assert list(table["jpg_1"]) == [client.get(pair["right"]).content for pair in kept]
    assert len(store.preferences()) == 6, "what people said stays"


def test_the_preference_tables_columns_have_the_types_they_had(client: TestClient, store: Store) -> None:
    import pyarrow.parquet as pq

    (first, *_) = next_pairs(client)
    empty, schema = (
        pq.read_schema(io.BytesIO(client.get("/api/projects/p/preferences.parquet").content))
        for _ in (0, send(client, answer(first["id"])))
    )
    assert {field.name: str(field.type) for field in schema} == {
        "caption": "large_string",
        "jpg_0": "binary",
        "jpg_1": "binary",
        "label_0": "double",
        "label_1": "double",
        "has_label": "bool",
        "both_bad": "bool",
        "source": "large_string",
        "round": "int64",
        "annotator": "large_string",
        "created_at": "timestamp[us, tz=UTC]",
        "elapsed_ms": "int64",
        "image_0_uid": "large_string",
        "image_1_uid": "large_string",
        "reasons": "list<element: string>",
        "reason_text": "large_string",
    }
    assert [field.name for field in schema] == list(preferences.COLUMNS)
    assert empty.equals(schema), "whether or not anything was said"


def test_why_somebody_chose_is_in_the_preference_table(client: TestClient, store: Store) -> None:
    import pandas

    first, second, *_ = next_pairs(client)
    labels = [answer(first["id"]), answer(second["id"])]
    why = {"of": labels[0]["uuid"], "reasons": ["colour", "details"], "text": "the fox glows"}
    send(client, *labels, {**answer(first["id"], "reasons"), **why})
    table = pandas.read_parquet(io.BytesIO(client.get("/api/projects/p/preferences.parquet").content))
    assert [list(found) for found in table["reasons"]] == [["colour", "details"], []]
    assert list(table["reason_text"]) == ["the fox glows", ""]


def test_a_table_to_publish_says_nothing_of_people(client: TestClient, store: Store) -> None:
    import pyarrow.parquet as pq

    first, *_ = next_pairs(client)
    label = answer(first["id"])
    why = {"of": label["uuid"], "reasons": ["colour"], "text": "as Ann's own fox"}
    send(client, label, {**answer(first["id"], "reasons"), **why})
    whole, told = (client.get(f"/api/projects/p/preferences.parquet{more}") for more in ("", "?people=false"))
    assert 'filename="p-preferences-to-publish.parquet"' in told.headers["content-disposition"]
    whole, told = (pq.read_table(io.BytesIO(found.content)) for found in (whole, told))
    kept = [name for name in preferences.COLUMNS if name not in preferences.ABOUT_PEOPLE]
    assert told.equals(whole.select(kept))
    assert told.column_names == [
        *("caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label", "both_bad"),
        *("source", "round", "image_0_uid", "image_1_uid"),
    ]


def test_the_export_page_names_every_column_and_which_are_about_people() -> None:
    named = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', MARKUP)
    assert [name for name, _ in named] == list(preferences.COLUMNS)
    about_people = [name for name, what in named if what.endswith("(about people)")]
    assert tuple(about_people) == preferences.ABOUT_PEOPLE


async def nobody_asks() -> dict[str, str]:
    await asyncio.sleep(60)
    return {"type": "http.disconnect"}


async def gone_away() -> dict[str, str]:
    return {"type": "http.disconnect"}


async def heard(message: Any) -> None:
    await asyncio.sleep(0)


async def hung_up(message: Any) -> None:
    raise OSError("the connection is gone")


@pytest.mark.parametrize(
    ("receive", "send"), [(nobody_asks, heard), (gone_away, heard), (nobody_asks, hung_up)]
)
def test_a_file_made_for_an_answer_is_deleted_whatever_becomes_of_the_answer(
    projects: Projects, store: Store, receive: Any, send: Any
) -> None:
    before = set(store.folder.iterdir())
    made = export.passing(projects.get("p"), lambda file: file.touch(), name="a.zip", media_type="a/b")
    assert set(store.folder.iterdir()) > before
    scope = {"type": "http", "method": "GET", "headers": []}
    with contextlib.suppress(OSError, ExceptionGroup):
        asyncio.run(made(scope, receive, send))
    assert set(store.folder.iterdir()) == before


def test_a_file_that_cannot_be_made_whole_leaves_nothing(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *_) = next_pairs(client)
    send(client, answer(first["id"]))
    before = set(store.folder.iterdir())

    def full(_: Path) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "read_bytes", full)
    assert client.get("/api/projects/p/preferences.parquet").status_code == 503
    assert set(store.folder.iterdir()) == before


# Setup


def create(client: TestClient, **changes: Any) -> httpx.Response:
    body = {
        "name": "new",
        "model": {"source": "starter"},
        "prompts": "a fox\na cat",
        "seed_pairs": 2,
        **changes,
    }
    return client.post("/api/projects", json=body)  # type: ignore[return-value]


def test_of_two_people_who_choose_one_name_at_once_the_second_is_told_that_it_is_taken(
    client: TestClient, projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = models.require_known

    def slow(model: ModelRef) -> None:
        time.sleep(0.3)
        plain(model)

    monkeypatch.setattr(models, "require_known", slow)
    said: list[httpx.Response] = []
    people = [threading.Thread(target=lambda: said.append(create(client))) for _ in range(2)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    made, refused = sorted(said, key=lambda answer: answer.status_code)
    assert (
        made.json() == {"project": "new"} and "There is a project 'new' already" in refused.json()["detail"]
    )
    assert [run.job for run in projects.get("new").store.runs()] == ["draw"]


def test_a_new_project_draws_its_first_pairs(client: TestClient, projects: Projects) -> None:
    assert create(client).json() == {"project": "new"}
    assert [run.job for run in projects.get("new").store.runs()] == ["draw"]
    assert client.get("/api/projects").json()["projects"] == ["new", "p"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "../../etc"}, "cannot name a project"),
        ({"name": "p"}, "There is a project 'p' already"),
        ({"prompts": "\n \n"}, "There is no prompt"),
        ({"prompts": "x" * 10_000}, "Line 1 has 10,000 characters"),
        ({"model": {"source": "/nowhere/model"}}, "No model at '/nowhere/model'"),
        ({"model": {"source": "https://example.com/model"}}, "No model at 'https://example.com/model'"),
        ({"model": {"source": "owner/name"}}, "needs a revision"),
        (
            {"model": {"source": "owner/name", "revision": "0" * 40}},
            "is not on this machine. Allow the download, or give the folder of a downloaded model.",
        ),
        ({"prompts": "a fox\n\ufffdO\ufffd"}, "Line 2 has '\\ufffd', which is no text."),
        ({"seed_pairs": 1}, "seed_pairs must be at least 2."),
        ({"settings": {"loss": {"beta": -1}}}, "loss.beta must be more than 0."),
        ({"settings": {"betta": 1}}, "betta is not known here."),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    client: TestClient, projects: Projects, changes: dict[str, Any], sentence: str
) -> None:
    response = create(client, **changes)
    assert response.status_code == 422
    assert sentence in response.json()["detail"]
    assert projects.names() == ["p"]


def test_a_model_of_no_known_family_is_refused_before_there_is_a_project(
    client: TestClient, projects: Projects, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "strange")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "KolorsPipeline"}))
    (fault,) = create(client, model={"source": str(folder)}).json()["faults"]
    assert fault["field"] == "model.source"
    assert "is a KolorsPipeline. Known families: StableDiffusionPipeline," in fault["sentence"]
    assert projects.names() == ["p"]


def test_how_runs_are_started_is_checked_at_its_field_and_kept(client: TestClient, store: Store) -> None:
    for launcher, field, sentence in (
        ({"processes": 0}, "launcher.processes", "must be at least 1"),
        ({"command": "srun train"}, "launcher.command", "The command has no {command}"),
        ({"command": "no-such-program {command}"}, "launcher.command", "There is no program"),
    ):
        response = client.post("/api/projects/p/settings", json={"settings": {}, "launcher": launcher})
        (fault,) = response.json()["faults"]
        assert (response.status_code, fault["field"]) == (422, field)
        assert (fault["sentence"] or fault["rule"]).startswith(sentence)
    before = store.project()
    asked = {"processes": 2, "command": "{python} {command}"}
    response = client.post("/api/projects/p/settings", json={"settings": {}, "launcher": asked})
    assert response.json()["launcher"] == asked == store.project().launcher.model_dump()
    assert store.project().settings == before.settings
    assert client.get("/api/projects/p/setup").json()["defaults"]["launcher"] == {
        "processes": 1,
        "command": "",
    }


def test_settings_are_changed_one_by_one(client: TestClient, store: Store) -> None:
    response = client.post("/api/projects/p/settings", json={"settings": {"optimisation": {"steps": 9}}})
    assert response.json()["settings"]["optimisation"]["steps"] == 9
    assert store.project().settings.optimisation.batch_pairs == 2


def moved(client: TestClient, source: Path | str, **more: Any) -> httpx.Response:
    body = {"model": {"source": str(source)}, **more}
    return client.post("/api/projects/p/model", json=body)  # type: ignore[return-value]


def test_a_project_goes_on_with_its_model_at_another_place(client: TestClient, store: Store) -> None:
    before = Path(store.project().model.source)
    before.rename(there := before.with_name("elsewhere"))
    refused = client.post("/api/projects/p/runs", json={"job": "draw"}).json()["detail"]
    assert refused.endswith("If it was moved, say in Setup where it is now.")
    assert moved(client, there).json()["model"]["source"] == str(there)
    assert RunFolder(store.run_folder(jobs.draw(store, 2, by="ann"))).request().model.source == str(there)
    last = [event for event in store.events() if event["kind"] == "model"][-1]
    assert (last["by"], last["payload"]["model"]["source"]) == ("ann", str(there))


def test_the_place_of_a_model_is_checked_as_at_creation(client: TestClient, store: Store) -> None:
    before, hub = store.project().model, {"source": "owner/name", "revision": "0" * 40}
    for model, field, sentence in (
        ({"source": "/nowhere"}, "model.source", "No model at '/nowhere'"),
        ({"source": "owner/name"}, "model.revision", "No model folder at owner/name"),
        (hub, "model.source", f"owner/name at {'0' * 40} is not on this machine. Allow the download"),
    ):
        response = client.post("/api/projects/p/model", json={"model": model})
        (fault,) = response.json()["faults"]
        assert (response.status_code, fault["field"]) == (422, field)
        assert fault["sentence"].startswith(sentence)
    assert store.project().model == before
    assert client.post("/api/projects/p/model", json={"model": hub, "download": True}).status_code == 200
    assert store.project().download and store.project().model.source == "owner/name"


def test_another_kind_of_model_is_refused_for_a_project_that_has_one(
    client: TestClient, projects: Projects, store: Store, tmp_path: Path
) -> None:
    def model(name: str, pipeline: str, channels: int) -> Path:
        folder = make_model(tmp_path / name)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        (folder / "vae").mkdir()
        (folder / "vae" / "config.json").write_text(json.dumps({"latent_channels": channels}))
        return folder

    # What was seen of it once holds when it is gone.
    own = model("own", "StableDiffusionPipeline", 4)
    assert moved(client, own).status_code == 200
    for file in store.folder.glob("runs/*/candidates/*.safetensors"):
        save_file({"latents": np.zeros((4, 4, 2, 2), np.float32)}, file)
    shutil.rmtree(own)
    for name, pipeline, channels, sentence in (
        (
            "xl",
            "StableDiffusionXLPipeline",
            4,
            "(pipeline: StableDiffusionXLPipeline; this project's: StableDiff",
        ),
        ("other", "StableDiffusionPipeline", 8, "(latent channels: 8; this project's: 4)"),
    ):
        (fault,) = moved(client, model(name, pipeline, channels)).json()["faults"]
        assert fault["field"] == "model.source" and sentence in fault["sentence"]
    assert store.project().model.source == str(own)
    assert moved(client, model("same", "StableDiffusionPipeline", 4)).status_code == 200


def test_a_setting_that_trained_pairs_rest_on_is_refused_in_a_sentence(
    client: TestClient, store: Store
) -> None:
    for pair in next_pairs(client):
        send(client, answer(pair["id"]))
    run_now(store, jobs.train(store, by="ann"))
    response = client.post("/api/projects/p/settings", json={"settings": {"held_out_every": 2}})
    assert response.status_code == 422
    assert "Make a new project for it." in response.json()["detail"]


def test_base_is_made_current_as_a_round_is(client: TestClient, store: Store) -> None:
    for pair in next_pairs(client):
        send(client, answer(pair["id"]))
    run_now(store, jobs.train(store, by="ann"))
    for current, step in ((None, "train"), (0, "propose")):
        said = client.post("/api/projects/p/current", json={"round": current}).json()
        status = client.get("/api/projects/p/status").json()
        assert (said, status["current"], status["next"]["name"]) == ({"current": current}, current, step)
    for wrong in ({}, {"round": -1}, {"round": 5}):
        assert client.post("/api/projects/p/current", json=wrong).status_code == 422


def test_a_file_that_cannot_be_written_is_one_sentence(client: TestClient, store: Store) -> None:
    shutil.rmtree(store.folder / "runs")
    (store.folder / "runs").write_text("in the way")
    response = client.post("/api/projects/p/runs", json={"job": "draw", "count": 2})
    assert response.status_code == 503
    assert "Not a directory" in response.json()["detail"] and "disk's space" in response.json()["detail"]


def test_labels_for_a_project_that_was_replaced_wait_in_the_browser(
    client: TestClient, store: Store, tmp_path: Path
) -> None:
    one, two = next_pairs(client)[:2]
    assert send(client, answer(one["id"])).status_code == 200
    store.folder.rename(tmp_path / "before")
    shutil.copytree(tmp_path / "before", store.folder)
    for refused in (send(client, answer(two["id"])), client.get("/api/projects/p/status")):
        assert refused.status_code == 503
        said = refused.json()["detail"]
        assert (
            "was moved, replaced or deleted" in said
            and "start it again once" in said
            and said.endswith("Labels and decisions wait in your browser.")
        )


def test_a_project_that_was_removed_can_be_made_anew_under_its_name(projects: Projects) -> None:
    asked = {"model": ModelRef(source="starter"), "prompts": "a fox\na cat", "seed_pairs": 2, "by": "ann"}
    first = projects.create("again", **asked)
    before = first.store.identity
    shutil.rmtree(first.store.folder)
    second = projects.create("again", **asked)
    assert second is projects.get("again") and second.store.identity != before
    assert [store for store, _ in projects.runner._runs()].count(second.store) == 1
    second.store.set_order("diverse", by="ann")
    # No second app may open it.
    with pytest.raises(ValueError, match="is open in another app already"):
        projects._hold(second.store.folder)


def made(client: TestClient, name: str) -> Store:
    asked = {"name": name, "model": {"source": "starter"}, "prompts": "a fox\na cat", "seed_pairs": 2}
    assert client.post("/api/projects", json=asked).status_code == 200
    return opened(client, name)


def opened(client: TestClient, name: str) -> Store:
    projects: Projects = client.app.state.projects  # type: ignore[attr-defined]
    return projects.get(name).store


def without_runs(store: Store) -> None:
    for run in store.runs():
        store.record_run_event(run.id, "withdrawn")


def test_a_project_is_renamed_with_all_that_is_in_it(client: TestClient, projects: Projects) -> None:
    before = made(client, "mine")
    without_runs(before)
    before.set_launcher(Launcher(command="true {command}"), by="ann")
    renamed = client.post("/api/projects/mine/rename", json={"name": "ours"})
    assert renamed.json() == {"project": "ours"}
    assert projects.names() == ["ours", "p"] and not before.folder.exists()
    after = opened(client, "ours")
    assert after.identity == before.identity and after.project().prompts == ("a fox", "a cat")
    # It would not count in another folder.
    assert after.project().launcher.command == "true {command}"
    # A page that is still on the former name is told.
    former = client.get("/api/projects/mine/status", headers={"x-sail-project": before.identity})
    assert former.status_code == 404 and former.json()["detail"].startswith("mine is called ours now. ")
    assert "no project 'mine'" in client.get("/api/projects/mine/status").json()["detail"]
    assert [run.what for run in after.runs()] == ["withdrawn"]


@pytest.mark.parametrize("name", ["P", "", "no/where"])
def test_a_project_is_not_renamed_to_what_is_no_free_name(
    client: TestClient, projects: Projects, name: str
) -> None:
    without_runs(made(client, "mine"))
    refused = client.post("/api/projects/mine/rename", json={"name": name})
    assert refused.status_code == 422 and refused.json()["faults"][0]["field"] == "name"
    assert projects.names() == ["mine", "p"] and client.get("/api/projects/mine/status").status_code == 200


def test_a_project_may_keep_its_name_in_other_letters(client: TestClient, projects: Projects) -> None:
    without_runs(made(client, "mine"))
    assert client.post("/api/projects/mine/rename", json={"name": "Mine"}).status_code == 200
    assert projects.names() == ["Mine", "p"]


def test_a_removed_project_can_be_put_back_as_it_was(client: TestClient, projects: Projects) -> None:
    first = made(client, "mine")
    without_runs(first)
    shutil.copytree(first.folder, copy := first.folder.with_name("copy"))
    opened(client, "copy")
    removed = client.post("/api/projects/mine/remove", json={})
    assert removed.json() == {"removed": "mine", "open": "p"}
    # Nobody is told that it is called otherwise, although its copy has its identity.
    gone = client.get("/api/projects/mine/status", headers={"x-sail-project": first.identity})
    assert gone.status_code == 404 and "There is no project 'mine'" in gone.json()["detail"]
    projects.remove(copy.name)
    shutil.rmtree(projects.root / ".removed" / copy.name)
    assert client.get("/api/projects").json() == {"projects": ["p"], "removed": ["mine"]}
    # What was said meanwhile waits in the browser.
    with pytest.raises(Displaced, match="mine was renamed or removed just now"):
        first.set_order("diverse", by="ann")
    # Another one of its name is no reason to lose the first.
    second = made(client, "mine")
    without_runs(second)
    refused = client.post("/api/removed/put-back", json={"name": "mine"})
    assert refused.status_code == 422 and "There is a project 'mine' already" in refused.json()["detail"]
    assert client.post("/api/projects/mine/remove", json={}).json()["removed"] == "mine 2"
    assert client.post("/api/removed/put-back", json={"name": "mine"}).json() == {"project": "mine"}
    assert opened(client, "mine").identity == first.identity != second.identity
    assert client.get("/api/projects").json() == {"projects": ["mine", "p"], "removed": ["mine 2"]}
    assert client.post("/api/removed/put-back", json={"name": "other"}).status_code == 404


def test_a_project_with_a_run_is_neither_renamed_nor_removed(client: TestClient) -> None:
    made(client, "mine")
    for route, body in (("rename", {"name": "ours"}), ("remove", {})):
        refused = client.post(f"/api/projects/mine/{route}", json=body)
        assert refused.status_code == 422 and "A run of mine is at work or waits." in refused.json()["detail"]
    assert client.get("/api/projects/mine/status").status_code == 200


def test_the_project_that_the_app_was_started_with_stays(client: TestClient, projects: Projects) -> None:
    for route, body in (("rename", {"name": "ours"}), ("remove", {})):
        refused = client.post(f"/api/projects/p/{route}", json=body)
        assert (
            refused.status_code == 422 and "p is the project that this app was started with" in refused.text
        )
    assert projects.names() == ["p"]


def test_a_training_says_how_many_pairs_it_does_without_and_which_file_is_gone(
    client: TestClient, store: Store
) -> None:
    for pair in next_pairs(client):
        send(client, answer(pair["id"]))
    first, *others = sorted({pair.winner.file for pair in store.human_pairs()})
    Path(first).unlink()
    started = client.post("/api/projects/p/runs", json={"job": "train"})
    assert started.status_code == 200
    assert started.json()["left_out"].startswith("1 judged pair is left out: runs/0001-propose/candidates/")
    store.record_run_event(started.json()["id"], "withdrawn")
    for file in others:
        Path(file).unlink()
    refused = client.post("/api/projects/p/runs", json={"job": "train"})
    assert refused.status_code == 422
    assert "has 0. Label more" in refused.json()["detail"]
    assert (
        f"6 judged pairs are left out: {Path(first).relative_to(store.folder)} and 5 more files are gone."
        in (refused.json()["detail"])
    )
    assert client.get("/api/projects/p/status").json()["labels"]["winners"] == 6


def test_a_file_that_is_gone_is_named_from_its_project_and_nothing_beyond(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pair in next_pairs(client):
        send(client, answer(pair["id"]))
    run_now(store, jobs.train(store, by="ann"))
    run = run_now(store, jobs.export(store, by="ann"))
    card = store.run_folder(run) / "export" / "README.md"
    # Gone between the look at it and its turn.
    monkeypatch.setattr("annotator.routes.export.pack", lambda *_, **__: card.unlink() or card.read_bytes())
    refused = client.get(f"/api/projects/p/export/{run.id}.zip")
    assert refused.status_code == 503
    assert f": p/runs/{run.folder}/export/README.md: No such file" in refused.json()["detail"]
    assert str(store.folder.parent) not in refused.json()["detail"]
    elsewhere = FileNotFoundError(2, "No such file or directory", "/secret/place/model.bin")
    assert file_of(elsewhere, root=store.folder.parent) == "model.bin"
    assert file_of(OSError("said by hand"), root=store.folder.parent) == ""


def test_a_broken_neighbour_is_refused_by_itself_and_gives_back_its_lock(
    client: TestClient, projects: Projects
) -> None:
    for name, content in (("bad", b"not a database, but long enough to be looked at" * 10), ("new", b"")):
        (projects.root / name).mkdir()
        (projects.root / name / "project.db").write_bytes(content)
    (projects.root / "locked").mkdir()
    (projects.root / "locked" / "project.db").touch()
    (projects.root / "locked" / ".server.lock").mkdir()
    projects.find_runs()
    for _ in range(2):
        refused = client.get("/api/projects/bad/status")
        assert refused.status_code == 422 and "cannot be read as a project" in refused.json()["detail"]
        assert "unfinished project" in client.get("/api/projects/new/status").json()["detail"]
    assert client.get("/api/projects/locked/status").status_code == 503
    assert client.get("/api/projects/p/status").status_code == 200


@pytest.mark.parametrize(
    ("kind", "said"), [("model", {"model": {"source": "m"}}), ("model", 7), ("prompts", 7)]
)
def test_a_neighbour_that_is_no_project_in_another_way_keeps_no_app_from_starting(
    client: TestClient, projects: Projects, kind: str, said: object
) -> None:
    bad = make_store(projects.root / "bad")
    bad._write(lambda: bad._append_event(kind, said, "ann"))
    bad.close()
    projects.find_runs()
    refused = client.get("/api/projects/bad/status")
    assert refused.status_code == 422 and "bad/project.db cannot be read as a project" in refused.text
    assert client.get("/api/projects/p/status").status_code == 200


def test_an_unknown_project_is_said_to_be_unknown(client: TestClient) -> None:
    response = client.get("/api/projects/nothing/status")
    assert response.status_code == 404
    assert (
        response.json()["detail"] == "There is no project 'nothing'. Choose one in Setup, or create it there."
    )


# Enemies


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:7861", "null"])
def test_a_foreign_origin_is_refused_even_with_the_cookie(
    client: TestClient, store: Store, origin: str
) -> None:
    (first, *_) = next_pairs(client)
    for path in ("/api/projects/p/labels", "/gradio_api/queue/join"):
        response = client.post(path, json={"answers": [answer(first["id"])]}, headers={"origin": origin})
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers
    assert store.label_history() == []


def test_a_websocket_of_a_foreign_origin_is_refused(client: TestClient) -> None:
    codes = []
    for origin in ("https://evil.example", "null", ORIGIN):
        with (
            pytest.raises(WebSocketDisconnect) as closed,
            client.websocket_connect(
                f"{ORIGIN.replace('http', 'ws')}/api/projects", headers={"origin": origin}
            ),
        ):
            pass
        codes.append(closed.value.code)
    # Ours gets past the guard, and finds nobody to talk to.
    assert codes == [1008, 1008, 1000]


def test_a_write_without_any_origin_needs_our_header(projects: Projects) -> None:
    bare = TestClient(build(projects), base_url=ORIGIN, cookies={"sail_person": "ann"})
    assert bare.post("/api/projects/p/pairs/next", json={}).status_code == 403
    own = bare.post("/api/projects/p/pairs/next", json={}, headers={"x-sail-client": "test"})
    assert own.status_code == 200


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200)])
def test_another_page_cannot_have_a_browser_ask_for_files_and_images(
    projects: Projects, client: TestClient, site: str, status: int
) -> None:
    (first, *_) = next_pairs(client)
    # As of an <img>: no origin is sent with it.
    bare = TestClient(build(projects), base_url=ORIGIN, headers={"sec-fetch-site": site})
    for path in ("/api/projects/p/preferences.parquet?1", "/api/projects", first["left"]):
        assert bare.get(path).status_code == status


def test_the_page_is_opened_by_a_link_from_anywhere_and_files_by_their_address(projects: Projects) -> None:
    said = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    followed = TestClient(build(projects), base_url=ORIGIN, headers=said)
    assert followed.get("/").status_code == followed.get("/ui/core.js").status_code == 200
    typed = TestClient(build(projects), base_url=ORIGIN, headers={"sec-fetch-site": "none"})
    assert typed.get("/api/projects/p/preferences.parquet").status_code == 200


def test_what_is_not_said_of_how_runs_are_started_stays(client: TestClient, store: Store) -> None:
    for launcher in ({"command": "{python} {command}"}, {"processes": 2}):
        response = client.post("/api/projects/p/settings", json={"settings": {}, "launcher": launcher})
        assert response.status_code == 200
    assert store.project().launcher.model_dump() == {"processes": 2, "command": "{python} {command}"}


def test_a_run_folder_that_cannot_be_read_takes_nothing_else_along(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = jobs.draw(store, 2, by="ann")

    def forbidden(folder: RunFolder, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # Whoever tests may be root, who can read all.
    monkeypatch.setattr(RunFolder, "request", forbidden)
    monkeypatch.setattr(RunFolder, "snapshot", forbidden)
    pair = next_pairs(client)[0]["id"]
    sent = answer(pair)
    said = client.post("/api/projects/p/labels", json={"answers": [sent]})
    assert said.status_code == 200 and said.json()["acknowledged"] == [sent["uuid"]]
    shown = {view["id"]: view for view in client.get("/api/projects/p/status").json()["runs"]}
    assert shown[run.id]["state"] == "waiting"


def test_a_project_whose_first_pairs_cannot_be_asked_for_is_not_made(
    client: TestClient, projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "draw", full)
        assert create(client).status_code == 503
    assert projects.names() == ["p"]
    assert create(client).status_code == 200


def test_prompts_in_any_script_fit_as_many_as_are_promised(client: TestClient) -> None:
    assert create(client, prompts="\n".join(f"{n}{'狐' * 500}" for n in range(2_900))).status_code == 200


def test_a_foreign_host_is_refused(projects: Projects) -> None:
    foreign = TestClient(build(projects), base_url="http://sail.example")
    for path in ("/", "/api/projects", "/config"):
        assert foreign.get(path).status_code == 400


def test_gradio_sends_no_cors_headers_of_its_own(client: TestClient, projects: Projects) -> None:
    response = client.get("/config", headers={"origin": "https://evil.example"})
    assert response.status_code == 403
    # Nor is the guard the only one in its way.
    app = build(projects)
    app.user_middleware = [one for one in app.user_middleware if one.cls is not Guard]
    alone = TestClient(app, base_url=ORIGIN).get("/config", headers={"origin": "https://evil.example"})
    assert alone.status_code == 200
    assert not [name for name in alone.headers if name.startswith("access-control-")]


def test_too_large_a_body_is_refused_with_and_without_its_length(client: TestClient) -> None:
    assert create(client, prompts="a fox\n" * 2_000_000).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(70):
            yield b" " * 100_000

    response = client.post("/api/projects", content=endless(), headers={"content-type": "application/json"})
    assert response.status_code == 413


def test_deep_json_is_refused(client: TestClient) -> None:
    deep = b'{"answers":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    response = client.post(
        "/api/projects/p/labels", content=deep, headers={"content-type": "application/json"}
    )
    assert response.status_code in (400, 413, 422)


@pytest.fixture
def unguarded(projects: Projects) -> TestClient:
    """The same app without what stands before it: what Gradio and FastAPI answer by themselves."""
    app = build(projects)
    app.user_middleware.clear()
    return TestClient(app, base_url=ORIGIN, raise_server_exceptions=False)


def test_gradio_checks_paths_although_it_is_mounted(unguarded: TestClient, projects: Projects) -> None:
    from fastapi import FastAPI

    assert mount_page(FastAPI(), projects).has_launched is True
    for path in ("/etc/passwd", "..%2F..%2F..%2F..%2Fetc/passwd", str(projects.root / "p" / DATABASE)):
        assert unguarded.get(f"/gradio_api/file={path}").status_code == 403, path


def test_the_parts_of_gradio_that_nobody_uses_are_closed(client: TestClient, unguarded: TestClient) -> None:
    for path in ("upload", "queue/join", "run/predict", "component_server", "reset", "cancel"):
        assert client.post(f"/gradio_api/{path}", json={}).status_code == 404, path
        assert unguarded.post(f"/gradio_api/{path}", json={}).status_code != 404, f"{path} is another one now"


def test_nothing_describes_our_routes_to_strangers(client: TestClient, unguarded: TestClient) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert unguarded.get(path).status_code == 404, path
    for path in ("/gradio_api/info", "/gradio_api/openapi.json"):
        assert unguarded.get(path).status_code == 200, f"{path} is another one now"
        assert client.get(path).status_code == 404, path


def test_every_answer_forbids_other_hosts_and_frames(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert response.headers["x-frame-options"] == "DENY"


# Starting


def run_app(root: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "app.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_what_keeps_the_app_from_starting_is_one_sentence_and_exit_2(root: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    make_store(locked).close()
    (locked / ".server.lock").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases = {
            f"Port {port} cannot be used": ("--port", port),
            "is not a project: it has no project.db": ("--project", str(tmp_path), "--port", "0"),
            "There are no accounts yet": ("--host", "0.0.0.0"),
            "cannot be used: Is a directory": ("--project", str(locked), "--port", "0"),
        }
        for sentence, flags in cases.items():
            ended = run_app(root, *flags)
            assert ended.returncode == 2
            assert sentence in ended.stderr and len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_who_starts_the_app_is_told_at_once_and_at_the_end_that_runs_go_on(
    root: Path, tmp_path: Path, how: signal.Signals
) -> None:
    store = make_store(tmp_path / "taste")
    run = jobs.draw(store, 2, by="ann")
    ours, theirs = pty.openpty()
    with RunFolder(store.run_folder(run)).lock(), open(ours, closefd=True) as terminal:
        store.record_run_event(run.id, "started")
        command = [sys.executable, str(root / "app.py"), "--project", str(store.folder), "--port", "0"]
        app = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True)
        os.close(theirs)
        assert terminal.readline() == "Starting SAIL ...\n"
        assert app.stdout is not None and app.stdout.readline().startswith("SAIL is at ")
        app.send_signal(how)
        said = f"Goes on without the app: taste, run {run.id}. The next start finds it.\n"
        assert terminal.readline() == said
        assert app.wait(timeout=30) == 0
        app.stdout.close()
    store.close()


def test_a_project_in_a_hidden_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    make_store(tmp_path / ".hidden").close()
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"\.hidden begins with a dot"):
        open_projects(tmp_path / ".hidden", home=tmp_path)


def test_the_demo_project_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"The prompt file .*starter\.txt cannot be read"):
        open_projects(None, home=tmp_path)
    (tmp_path / "data" / "prompts").mkdir(parents=True)
    (tmp_path / "data" / "prompts" / "starter.txt").write_text("a fox")
    with pytest.raises(ValueError, match=r"No model at .*starter"):
        open_projects(None, home=tmp_path)
    make_model(tmp_path / "data" / "starter")
    home = tmp_path / "data" / "projects"
    home.write_text("")
    with pytest.raises(ValueError, match=r"projects is no folder.*Move it away"):
        open_projects(None, home=tmp_path)
    home.unlink()
    (home / "demo").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"demo is there and no project. Move it away"):
        open_projects(None, home=tmp_path)
    (home / "demo").rmdir()
    projects = open_projects(None, home=tmp_path)
    assert projects.get("demo").store.runs()[0].job == "draw"
    projects.close()


@pytest.mark.parametrize("earlier", [False, True], ids=["kept by name", "kept by an earlier version's path"])
def test_the_model_that_ships_is_found_after_the_clone_has_moved(tmp_path: Path, earlier: bool) -> None:
    clone, renamed = tmp_path / "clone", tmp_path / "renamed"
    make_model(clone / "data" / "starter")
    (clone / "data" / "prompts").mkdir()
    (clone / "data" / "prompts" / "starter.txt").write_text("a fox\na cat")
    projects = open_projects(None, home=clone)
    projects.close()
    if earlier:
        store = Store(clone / "data" / "projects" / "demo")
        store.set_model(ModelRef(source=str(clone / "data" / "starter")), download=False, by="app")
        store.close()
    clone.rename(renamed)
    projects = open_projects(None, home=renamed)
    store = projects.get("demo").store
    run_now(store, store.runs()[0])
    run = jobs.draw(store, 2, by="ann")
    here = str(renamed / "data" / "starter")
    assert store.project().model.source == here
    assert RunFolder(store.run_folder(run)).request().model.source == here
    projects.close()


def test_a_project_is_open_in_one_app_only(projects: Projects, tmp_path: Path) -> None:
    projects.get("p")
    other = Projects(tmp_path / "all", default="p", starter=tmp_path)
    with pytest.raises(ValueError, match="open in another app already"):
        other.get("p")


def test_a_project_behind_a_link_is_called_by_the_links_name(projects: Projects, tmp_path: Path) -> None:
    make_store(tmp_path / "elsewhere" / "sail-demo").close()
    (tmp_path / "all" / "demo").symlink_to(tmp_path / "elsewhere" / "sail-demo")
    project = projects.get("demo")
    drawn(project.store, 1)
    client = TestClient(build(projects), base_url=ORIGIN, headers={"origin": ORIGIN})
    client.cookies.set("sail_person", "ann")
    (pair,) = client.post("/api/projects/demo/pairs/next", json={}).json()["pairs"]
    assert client.get(pair["left"]).status_code == 200
    assert client.get("/api/projects/demo/status").json()["project"] == "demo"


@pytest.mark.slow
def test_a_killed_server_loses_no_acknowledged_label(tmp_path: Path) -> None:
    store = make_store(tmp_path / "p")
    drawn(store, 10)
    store.close()
    acknowledged: set[str] = set()
    for _ in range(2):
        before = len(acknowledged)
        app = start_app(tmp_path / "p")
        base = f"{app.address}/api/projects/p"
        threads = [
            threading.Thread(target=hammer, args=(base, f"person-{n}", acknowledged)) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda before=before: len(acknowledged) > before + 20, timeout_s=60)  # type: ignore[misc]
        app.end(signal.SIGKILL)
        for thread in threads:
            thread.join()
    kept = [row["uuid"] for row in Store(tmp_path / "p").label_history()]
    assert acknowledged <= set(kept) and len(kept) == len(set(kept))


def hammer(base: str, who: str, acknowledged: set[str]) -> None:
    """Label and take back the same pairs until the server is gone."""
    with httpx.Client(headers={"x-sail-client": "test"}, cookies={"sail_person": who}, timeout=10) as client:
        try:
            while True:
                for pair in client.post(f"{base}/pairs/next", json={}).json()["pairs"]:
                    own = answer(pair["id"], "skip")
                    undo = {"uuid": new_uuid(), "value": "undo", "undoes": own["uuid"]}
                    said = client.post(f"{base}/labels", json={"answers": [own, undo]}).json()
                    acknowledged.update(said["acknowledged"])
                time.sleep(0.01)
        except httpx.HTTPError:
            return


def test_a_browser_asks_whether_a_script_has_changed(client: TestClient) -> None:
    script = client.get("/ui/core.js")
    assert script.headers["cache-control"] == "no-cache"
    again = client.get("/ui/core.js", headers={"if-none-match": script.headers["etag"]})
    assert (again.status_code, again.content, again.headers["cache-control"]) == (304, b"", "no-cache")


def test_a_draw_whose_folder_is_gone_does_not_take_the_status_along(
    client: TestClient, store: Store, projects: Projects
) -> None:
    run = jobs.draw(store, 4, by="ann")
    shutil.rmtree(store.run_folder(run))
    assert client.get("/api/projects/p/status").status_code == 200
    assert client.post("/api/projects/p/pairs/next", json={}).status_code == 200


def test_what_a_killed_server_left_is_removed_when_its_project_is_opened(tmp_path: Path) -> None:
    made = make_store(tmp_path / "p")
    made.close()
    (tmp_path / "p" / ".export-abc").write_bytes(b"half a zip")
    begun, kept = (tmp_path / "p" / "runs" / name for name in (".0007-train.4711.new", ".mine.new"))
    for folder in (begun, kept):
        folder.mkdir()
        (folder / "pairs.jsonl").touch()
    projects = Projects(tmp_path, default="p", starter=tmp_path / "starter", runner=fake_runner())
    projects.get("p")
    assert not (tmp_path / "p" / ".export-abc").exists()
    assert not begun.exists() and kept.exists()
    projects.close()
