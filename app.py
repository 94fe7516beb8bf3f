"""Flags -> projects -> server: `python app.py [--project DIR] [--host 127.0.0.1] [--port 7860]`."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost")
FILES = 10_240
"""Open files that the app asks for: as many as macOS gives."""


def listen(host: str, port: int) -> socket.socket:
    """A socket on this machine only. ValueError says why there can be none."""
    if host not in LOOPBACK:
        raise ValueError(
            f"There are no accounts yet, so the app answers on this machine only, not on {host}. "
            "Leave --host out."
        )
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        why = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise ValueError(f"Port {port} cannot be used: {why}. Choose another one with --port.") from None
    return listener


def open_many_files() -> None:
    """Allow what this user may have: of each open project every thread that reads it has files open."""
    try:
        import resource
    except ImportError:  # Windows counts in another way.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Choose between images, and teach a diffusion model your taste."
    )
    parser.add_argument("--project", type=Path, help="folder of a project (default: the demo project)")
    parser.add_argument("--host", default="127.0.0.1", help="loopback only, until there are accounts")
    parser.add_argument("--port", type=int, default=7860, help="on this machine (default: 7860)")
    flags = parser.parse_args()
    # As service managers end it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # To who waits; a log needs no word of what has not come about yet.
    if sys.stderr.isatty():
        print("Starting SAIL ...", file=sys.stderr, flush=True)
    try:
        return run(flags)
    except KeyboardInterrupt:
        return 0


def run(flags: argparse.Namespace) -> int:
    """Until told to end; 2 where it cannot start, and why in a sentence. Runs at work outlive it."""
    # Imported here, since it takes seconds: something is said before.
    from annotator.projects import open_projects
    from annotator.store import DatabaseError

    open_many_files()
    try:
        listener = listen(flags.host, flags.port)
        projects = open_projects(flags.project, home=Path(__file__).resolve().parent)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        what, why = error.filename or "A file", error.strerror or error
        print(f"{what} cannot be used: {why}. Check the folder and the disk's space.", file=sys.stderr)
        return 2
    except DatabaseError as error:
        print(f"The project cannot be written: {error}. Check the disk's space.", file=sys.stderr)
        return 2
    projects.runner.start()
    try:
        # Gradio takes seconds more; the first pairs are being drawn meanwhile.
        from annotator.server import serve

        serve(projects, listener)
    finally:
        left = [f"{store.name}, run {run.id}" for store, run in projects.runner.running()]
        projects.close()
        if left:
            print(f"Goes on without the app: {'; '.join(left)}. The next start finds it.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
