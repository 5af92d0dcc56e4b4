"""The page at `/`, from the files beside this one: no build step, nothing from elsewhere.

index.html, page.css and icon.svg; page.js wires the other modules together.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request, Response

_FOLDER = Path(__file__).parent
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Cache-Control": "no-cache",  # asked for again each time, and answered by 304: an upgrade shows at once
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every file of the page."""


@dataclass(frozen=True)
class PageFile:
    """A file of the page, as it is sent.

    Attributes:
        content: its bytes.
        media_type: with the character set of a text.
        etag: changes with the content.
    """

    content: bytes
    media_type: str
    etag: str


def page_files() -> dict[str, PageFile]:
    """All files of the page by the path that they are served at: `/` and `/page/...`."""
    found = {}
    for file in sorted(_FOLDER.iterdir()):
        if file.suffix in _TYPES:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            content = file.read_bytes()
            found[path] = PageFile(content, _TYPES[file.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


def add_page(app: FastAPI) -> None:
    """Serve the page at `/` and its files under `/page/`; they hold no secret and need no token."""
    for path, file in page_files().items():
        _add(app, path, file)


def _add(app: FastAPI, path: str, file: PageFile) -> None:
    async def send(request: Request) -> Response:
        headers = {**HEADERS, "ETag": file.etag}
        if file.etag in _tags(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    app.add_api_route(path, send, methods=["GET", "HEAD"], include_in_schema=False)


def _tags(header: str) -> set[str]:
    """The tags of an If-None-Match header; one that a proxy made weak by compressing stands for the same content."""
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}
