"""What stands before every route, Gradio's own included. Knows headers and bytes, never what they are for."""

from __future__ import annotations

import contextlib
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

SAFE = ("GET", "HEAD", "OPTIONS")
OWN_CLIENT = "x-sail-client"
"""A browser cannot send this header from another site without asking first, and nobody answers yes."""
OWN_SITES = ("same-origin", "none")
"""What a browser says of a request by our own page, or by its user, such as an address that was typed."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    # Nothing on the page may ask another host for anything.
    "content-security-policy": (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
        "frame-ancestors 'none'; form-action 'self'"
    ),
}


class TooLarge(Exception):
    """The body is larger than any request of this app. Whoever reads it may turn this into an answer."""


class Guard:
    """Refuses foreign origins, routes that nobody uses and bodies that are too large.

    `routes` are the paths that exist, those with a slash at the end with all below them. Every answer
    gets HEADERS.
    """

    def __init__(self, app: ASGIApp, *, routes: tuple[str, ...], max_body_bytes: int) -> None:
        self._app = app
        self._exact = frozenset(route for route in routes if not route.endswith("/") or route == "/")
        self._below = tuple(route for route in routes if route.endswith("/") and route != "/")
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not is_own(scope, headers):
            await refuse(scope, receive, send, 403, "This request came from another page, so it was refused.")
            return
        if scope["path"] not in self._exact and not scope["path"].startswith(self._below):
            await refuse(scope, receive, send, 404, "There is nothing here.")
            return
        too_large = f"The request is larger than {self._max_body_bytes // 1_000_000} MB. Send less at once."
        if int(headers.get("content-length") or 0) > self._max_body_bytes:
            await refuse(scope, receive, send, 413, too_large)
            return
        started = over = False
        received = 0

        async def counted() -> Message:
            nonlocal received, over
            message = await receive()
            received += len(message.get("body", b""))
            over = received > self._max_body_bytes
            if over:
                raise TooLarge
            return message

        async def with_headers(message: Message) -> None:
            nonlocal started
            if over and not started:
                return
            if message["type"] == "http.response.start":
                started = True
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
            await send(message)

        with contextlib.suppress(TooLarge):
            await self._app(scope, counted, with_headers)
        if over and not started:
            await refuse(scope, receive, send, 413, too_large)


def is_own(scope: MutableMapping[str, Any], headers: Headers) -> bool:
    """Whether a request comes from our own page, or from a program that says it is one of ours."""
    # Any page may have a browser ask for an image or a file, some of which take minutes to make; the browser
    # then says so here. The page itself may be opened from anywhere.
    if scope["path"].startswith("/api/") and headers.get("sec-fetch-site", "none") not in OWN_SITES:
        return False
    origin = headers.get("origin")
    scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
    if origin is not None:
        return origin == f"{scheme}://{headers.get('host', '')}"
    return scope.get("method") in SAFE or OWN_CLIENT in headers


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    no = WebSocketClose(1008) if scope["type"] == "websocket" else JSONResponse({"detail": why}, status)
    await no(scope, receive, send)
