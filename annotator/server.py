"""FastAPI with our own routes, and the Gradio page mounted behind the same guard. Decides nothing itself."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from annotator import routes
from annotator.guard import Guard
from annotator.projects import Projects
from annotator.tabs import page

STATIC = Path(__file__).parent / "static"
MAX_BODY_BYTES = 6_500_000
"""As many as the longest list of prompts has, in the scripts whose characters take most."""
QUEUE_LOOK_S = 1.0
# All that the page asks Gradio for. It has no event, so uploads, the queue and the files stay closed.
GRADIO_ROUTES = (
    "/", "/config", "/theme.css", "/favicon.ico", "/assets/", "/static/",
    "/gradio_api/startup-events", "/gradio_api/heartbeat/",
)  # fmt: skip
OWN_ROUTES = ("/api/", "/ui/")
HOSTS = ("127.0.0.1", "localhost")
"""The names that it answers to."""


def build(projects: Projects) -> FastAPI:
    """The whole app."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.projects = projects
    app.include_router(routes.api)
    routes.add_error_answers(app)
    app.mount("/ui", _AskedAgain(directory=STATIC))
    # With a CORS policy on the parent, Gradio adds none of its own: no origin but ours is let in.
    app.add_middleware(CORSMiddleware, allow_origins=())
    app.add_middleware(Guard, routes=OWN_ROUTES + GRADIO_ROUTES, max_body_bytes=MAX_BODY_BYTES)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    mount_page(app, projects)
    return app


class _AskedAgain(StaticFiles):
    """Files that a browser asks about each time, which costs an answer of 304: left to itself it keeps old
    ones for days, and after an update old and new scripts would meet."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def mount_page(app: FastAPI, projects: Projects) -> Any:
    blocks = page.build()
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        allowed_paths=[],
        show_error=False,
        max_file_size="20mb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=page.theme(),
        css_paths=[STATIC / "app.css"],
        head=page.head(default_project=projects.default),
    )
    # Gradio checks file paths in requests only once it believes that it was launched.
    blocks.has_launched = True
    # Nothing goes through its queue, and it looks there every millisecond: 7 % of a core with nobody at work.
    blocks._queue.sleep_when_free = blocks._queue.progress_update_sleep_when_free = QUEUE_LOOK_S
    return blocks


def serve(projects: Projects, listener: socket.socket) -> None:
    """Answer until told to end; at Ctrl+C that is a KeyboardInterrupt."""
    config = uvicorn.Config(build(projects), log_level="warning", lifespan="on", timeout_graceful_shutdown=3)
    _Told(config).run(sockets=[listener])


class _Told(uvicorn.Server):
    """Says where it is once it answers, and so ends in order when told to from then on."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for host, port, *_ in map(socket.socket.getsockname, sockets or ()):
            print(f"SAIL is at http://{host}:{port}", flush=True)
