"""Stands before every request: which files are served, how much may be sent, which of gradio's routes are not ours; and a log.

gradio serves everything below an allowed folder. A run's folder also holds its settings, its log and its checkpoints, so
here only pictures and adapter files of it are let through, and nothing that a link leads out of it to.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.text import say

SERVED = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".safetensors")
"""Endings of files in the shared folders that a page may show or offer."""
LARGEST_BODY = 16 * 2**20
"""Bytes of a request that is no upload."""
LONGEST_SHOWN = 200
"""Characters of a refused address in the log."""
READING = ("GET", "HEAD", "OPTIONS")
"""What another site's page may send here without harm; with other methods its browser names it, and it is refused."""
UPLOADS = ("/gradio_api/upload", "/gradio_api/upload/")
CALLS = ("/gradio_api/queue/join", "/gradio_api/queue/join/")
FILE = re.compile(r"/gradio_api/file[=/](.*)$", re.DOTALL)
OTHERS = "api|call|component_server|deep_link|dev|process_recording|proxy=|run|stream|undo-vibe|vibe"
NOT_OURS = re.compile(rf"/monitoring|/gradio_api/({OTHERS})")
"""Routes of gradio's that no page uses: calls beside the queue and of components, fetching from other hosts, recordings,
statistics, its hub."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shelf:
    """The files that may be served: all of the server's own copies, and pictures and adapter files of shared folders."""

    own: Path
    shared: Sequence[Path]
    hidden: Path

    def has(self, name: str) -> bool:
        """Whether a file, as the address names it, may be served."""
        try:
            path = Path(name).resolve()
        except (OSError, ValueError, RuntimeError):
            return False
        if path.is_relative_to(self.own):
            return True
        if path.suffix.lower() not in SERVED or path.is_relative_to(self.hidden):
            return False
        return any(path.is_relative_to(folder) for folder in self.shared)


class Guard:
    """The middleware around the whole app."""

    def __init__(self, app: ASGIApp, shelf: Shelf) -> None:
        self.app, self.shelf = app, shelf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                log.warning("%s %r: %s", scope["method"], scope["path"][:LONGEST_SHOWN], message["status"])
            await send(message)

        refused = self.refused(scope)
        if refused is not None:
            await PlainTextResponse(refused.phrase, refused)(scope, receive, told)
            return
        try:
            await self.app(scope, limited(scope, receive), told)
        except (KeyError, ValueError):  # gradio looks a function up by the number in the request and bears no other, and no NaN
            if begun or scope["path"] not in CALLS:
                raise
            await JSONResponse({"detail": say("error.old_page")}, HTTPStatus.NOT_FOUND)(scope, receive, told)

    def refused(self, scope: Scope) -> HTTPStatus | None:
        """Why a request is not let through; None where it is."""
        path = scope["path"]
        file = FILE.search(path)
        if file and not self.shelf.has(file[1]):
            return HTTPStatus.FORBIDDEN
        if not file and NOT_OURS.search(path):
            return HTTPStatus.NOT_FOUND
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] not in READING and origin.partition(b"://")[2] != headers.get(b"host"):
            return HTTPStatus.FORBIDDEN
        sent = headers.get(b"content-length", b"0")
        if path not in UPLOADS and (not sent.isdigit() or int(sent) > LARGEST_BODY):
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return None


def limited(scope: Scope, receive: Receive) -> Receive:
    """``receive`` that ends a body which grows beyond the limit without having said so; an upload has gradio's own limit."""
    if scope["path"] in UPLOADS:
        return receive
    taken = 0

    async def count() -> Any:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > LARGEST_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return message

    return count
