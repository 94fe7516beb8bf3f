"""How a run is started: what is refused when it is entered, and what is started in the end."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from annotating import make_store
from pydantic import ValidationError

from annotator.launcher import Launcher
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


def test_a_command_holds_in_the_place_where_it_was_entered(tmp_path):
    store = make_store(tmp_path / "mine")
    entered = Launcher(processes=2, command="{python} {command}")
    store.set_launcher(entered, by="ann")
    assert store.project().launcher == entered
    store.close()
    shutil.copytree(tmp_path / "mine", tmp_path / "theirs")
    copied = Store(tmp_path / "theirs")
    assert copied.project().launcher == Launcher(processes=2)
    copied.close()
