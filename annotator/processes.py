"""Processes of this machine: started, known again, ended. Knows no project and no run folder's content."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import sail
from sail.files import open_no_link

Launch = Callable[[Sequence[str], Path, Mapping[str, str]], "subprocess.Popen[bytes]"]
TERM_PATIENCE_S = 5.0
"""So long a process may take to leave once it is told to, before it is killed."""

# Threads that wait spin by default, which takes the cores from the page and from each other: beside one
# busy process the first pair came after 48 s, with this after 18 s. Results are the same.
SHARING = {"OMP_WAIT_POLICY": "PASSIVE"}
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
ONLINE = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}


def launch(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The command of a run in its own session, so that it outlives this process."""
    home = str(Path(sail.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))
    with open(folder / "log.txt", "ab", opener=open_no_link) as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env={**SHARING, **os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **environment},
            start_new_session=True,
        )


def works_on(pid: int, folder: Path) -> bool:
    """Whether that process was started for this folder; numbers are given out again.

    It may be a launcher whose run waits for a machine, or holds its folder on another one.
    """
    try:
        return os.fsencode(folder) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def leads(pid: int, folder: Path) -> bool:
    """Whether that process works on the folder, and in a session of its own: its group is the run's alone."""
    try:
        return works_on(pid, folder) and os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def end_group(pid: int) -> None:
    """End a process and all that it started: told first, and killed where one of them is still there."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + TERM_PATIENCE_S
        try:
            os.killpg(pid, how)
            while time.monotonic() < until:
                time.sleep(0.1)
                os.killpg(pid, 0)
        except ProcessLookupError:
            return


def exists(pid: int) -> bool:
    """Also where it is another user's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
