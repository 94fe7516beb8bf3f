"""A running app.py and a Chromium to open it in. Knows nothing of what its pages show."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""The system's Chromium, by the names that `make test` accepts as well."""


UNUSED = (
    # The address bar's own pages are loaded with every window: most of what an empty page costs.
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup",
    # The last list counts, so what Playwright turns off and is felt here stands in it again.
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "MediaRouter",
    "NetworkTimeServiceQuerying", "OptimizationHints", "PaintHolding",
)  # fmt: skip
"""Features of Chromium that nobody sees without its window."""


def chromium() -> dict[str, Any]:
    """How Playwright is to launch it."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return {"executable_path": found, "args": ["--no-sandbox", f"--disable-features={','.join(UNUSED)}"]}


@dataclass
class App:
    """A running app.py."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> str:
        return self.address.rsplit(":", 1)[1]

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(timeout=30)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_app(project: Path | None = None, *, port: str = "0", root: Path = ROOT) -> App:
    """Until it answers, on a free port unless one is asked for. RuntimeError where it does not start."""
    command = [sys.executable, str(root / "app.py"), "--port", port]
    if project:
        command += ["--project", str(project)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("SAIL is at "):
        raise RuntimeError(f"The app did not start: {line!r}.")
    return App(process, line.split()[-1])
