"""How a run is started: what is refused when it is entered, and what is started in the end."""

from __future__ import annotations

import functools
import platform
import shutil
import sys
from pathlib import Path

import pytest
from annotating import make_model, make_store
from pydantic import ValidationError

from annotator.launcher import KEY_BYTES, Launcher, launch_key
from annotator.projects import open_projects
from annotator.store import Store
from sail.config import first_fault

RUN = ["-m", "sail", "train", "/runs/0001-train"]


def words(**settings) -> list[str]:
    return Launcher(**settings).words("train", Path("/runs/0001-train"))


def test_one_process_is_python_and_several_are_torchrun():
    assert words() == [sys.executable, *RUN]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
    assert words(processes=4) == [sys.executable, *several, *RUN]


def test_a_command_is_split_like_a_shells_and_its_placeholders_are_filled_in():
    command = (
        "srun --comment 'two words' {python} -m torch.distributed.run --nproc_per_node={processes} {command}"
    )
    started = words(command=command, processes=2)
    assert started[:4] == ["srun", "--comment", "two words", sys.executable]
    assert started[-5:] == ["--nproc_per_node=2", *RUN]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"command": "srun train"}, "has no {command}"),
        ({"command": "{command}"}, "has no {command}"),
        ({"command": "srun --folder={command}"}, "has no {command}"),
        ({"command": "srun 'python {command}"}, "Close every quote"),
        ({"command": "srun ${HOME} {command}"}, "{HOME} means nothing here"),
        ({"command": "srun {gpus} {command}"}, "There are {command}, {python}, {processes}"),
        ({"processes": 0}, "greater than or equal to 1"),
        ({"gpus": 2}, "gpus"),
    ],
)
def test_what_could_start_no_run_is_refused_in_a_sentence(settings, sentence):
    with pytest.raises(ValidationError) as refused:
        Launcher(**settings)
    assert sentence in first_fault(refused.value)


def test_a_program_that_is_not_there_is_refused_when_it_is_entered_and_not_when_it_is_read():
    missing = Launcher(command="no-such-program {command}")
    with pytest.raises(ValueError, match="no program 'no-such-program'"):
        missing.checked()
    assert Launcher().checked().processes == 1
    assert Launcher(command="{python} {command}").checked().command == "{python} {command}"


def test_a_command_of_blanks_is_none():
    assert Launcher(command="  ").checked().words("train", Path("run"))[0] == sys.executable


ENTERED = Launcher(processes=2, command="{python} {command}")
KEY = bytes(32)


def opened(folder: Path, key: bytes = KEY) -> Store:
    store = Store(folder)
    store.launch_key = key
    return store


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A project in which somebody has entered a command."""
    make_store(tmp_path / "mine").close()
    store = opened(tmp_path / "mine")
    store.set_launcher(ENTERED, by="ann")
    assert store.project().launcher == ENTERED
    store.close()
    return tmp_path / "mine"


def launcher_of(store: Store) -> Launcher:
    found = store.project().launcher
    store.close()
    return found


def test_a_command_holds_in_the_place_where_it_was_entered(mine, tmp_path):
    assert launcher_of(opened(mine)) == ENTERED
    shutil.copytree(mine, tmp_path / "theirs")
    assert launcher_of(opened(tmp_path / "theirs")) == Launcher(processes=2)


def test_a_command_needs_a_secret_that_is_not_in_the_project(mine):
    assert launcher_of(opened(mine, bytes(31) + b"1")) == Launcher(processes=2)
    # As a project says it that was made for that place elsewhere, before there was a secret as well.
    store = opened(mine)
    place = f"{platform.node()}:{mine}"
    for said in ({"place": place}, {"seal": place}, {}):
        payload = {"processes": 2, "command": ENTERED.command, **said}
        store._write(functools.partial(store._append_event, "launcher", payload, "eve"))
        assert store.project().launcher == Launcher(processes=2)
    store.close()


def test_what_says_that_a_command_was_entered_says_it_of_no_other_one(mine):
    store = opened(mine)
    seal = store.events()[-1]["payload"]["seal"]
    payload = {"command": "{python} -c 'import this' {command}", "seal": seal}
    store._write(functools.partial(store._append_event, "launcher", payload, "eve"))
    assert launcher_of(store) == Launcher()


def test_the_secret_is_made_once_and_its_owners_alone(tmp_path):
    file = tmp_path / "launch.key"
    key = launch_key(file)
    assert launch_key(file) == key == file.read_bytes() and len(key) == KEY_BYTES
    assert file.stat().st_mode & 0o777 == 0o600 and list(tmp_path.iterdir()) == [file]


def test_a_secret_that_cannot_be_kept_is_a_new_one_each_time(tmp_path):
    (tmp_path / "cut").write_bytes(b"")
    for file in (tmp_path / "no-folder" / "launch.key", tmp_path / "cut"):
        assert launch_key(file) != launch_key(file) and len(launch_key(file)) == KEY_BYTES


def test_a_command_holds_after_a_restart_and_its_secret_lies_in_no_project(tmp_path):
    home = tmp_path / "clone"
    (home / "data" / "prompts").mkdir(parents=True)
    (home / "data" / "prompts" / "starter.txt").write_text("a fox\na cat\n")
    make_model(home / "data" / "starter")
    for entered in (True, False):
        projects = open_projects(None, home=home)
        store = projects.get("demo").store
        if entered:
            store.set_launcher(ENTERED, by="ann")
        assert store.project().launcher == ENTERED
        projects.close()
    key = (home / "data" / "launch.key").read_bytes()
    files = [file for file in (home / "data" / "projects").rglob("*") if file.is_file()]
    assert files and not any(key in file.read_bytes() for file in files)
