"""How a run is started: one process here, several, or a command of one's own. Starts nothing."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import Field, field_validator

from sail.config import Config

PLACEHOLDERS = ("command", "python", "processes")
KEY_BYTES = 32


def launch_key(file: Path) -> bytes:
    """The secret by which a command is known to have been entered here; made in `file` on first use.

    It lies outside every project: whoever makes one that is sent here has to be unable to know it.
    """
    fresh = secrets.token_bytes(KEY_BYTES)
    try:
        if not file.exists():
            # A temporary file is its owner's alone. Linked once it is whole; where two apps start at once the
            # first one's counts.
            with tempfile.NamedTemporaryFile(dir=file.parent) as made, suppress(FileExistsError):
                made.write(fresh)
                made.flush()
                os.fsync(made.fileno())
                os.link(made.name, file)
        kept = file.read_bytes()
    except OSError:
        kept = b""
    # Where it cannot be kept it is this process's alone: commands are then to be entered again after each
    # start, which is a nuisance, while one that others can guess would let their projects start programs.
    return kept if len(kept) == KEY_BYTES else fresh


class Launcher(Config):
    """Nothing that a run computes depends on it, but for the last bits of an adapter."""

    processes: int = Field(1, ge=1, le=64)
    """Started on this machine, one a GPU; what stands for {processes} in a command."""
    command: str = Field("", max_length=2000)
    """Instead, a program and its arguments, as in a shell but without one. {command} stands for
    `-m sail KIND FOLDER`, which python and torchrun take; {python} for the app's own Python. It is to end
    when the run has ended, and not before."""

    @field_validator("command")
    @classmethod
    def _is_a_template(cls, command: str) -> str:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ValueError(
                f"The command cannot be split into words: {error}. Close every quote."
            ) from error
        unknown = [name for name in re.findall(r"\{(\w*)\}", command) if name not in PLACEHOLDERS]
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(
                f"{{{unknown[0]}}} means nothing here. There are {known}; "
                "variables of a shell belong into a script of your own."
            )
        if words and "{command}" not in words[1:]:
            raise ValueError(
                "The command has no {command}, so it would start no run. "
                "Put {command}, as a word by itself, where python or torchrun takes what to do."
            )
        return command.strip()

    def checked(self) -> Launcher:
        """Raise ValueError where its program is not on this machine; return self otherwise."""
        program = self.words("train", Path("run"))[0]
        if shutil.which(program) is None:
            raise ValueError(f"There is no program {program!r} here. Give its full path, or install it.")
        return self

    def words(self, kind: str, folder: Path) -> list[str]:
        """The program and arguments that do what a run folder asks for."""
        run = ["-m", "sail", kind, str(folder)]
        if not self.command:
            several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}"]
            return [sys.executable, *(several if self.processes > 1 else []), *run]
        values = {"{python}": sys.executable, "{processes}": str(self.processes)}
        words: list[str] = []
        for word in shlex.split(self.command):
            for name, value in values.items():
                word = word.replace(name, value)
            words += run if word == "{command}" else [word]
        return words
