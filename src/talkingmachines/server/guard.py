"""What a request must show before it is answered, and how much of it is read."""

import asyncio
import hmac
import json
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from talkingmachines.server.config import ServerConfig

JSON_BYTES = 64_000
BODY_SECONDS = 30.0

OPEN, OPEN_BELOW = ("/", "/healthz", "/readyz"), ("/page/", "/characters/", "/api/pictures/")
"""Answered without a token: nothing in it is anybody's, or its name cannot be guessed."""


class Refused(Exception):
    """A request that is not carried out: an HTTP status, why in one line, and whatever else the page can use."""

    def __init__(self, status: int, why: str, headers: dict[str, str] | None = None, **more: object) -> None:
        super().__init__(why)
        self.status, self.why, self.headers, self.more = status, why, headers, more

    def response(self) -> Response:
        return JSONResponse({"detail": self.why} | self.more, self.status, self.headers)


def check(request: Request, config: ServerConfig) -> None:
    """Refuses a request from a foreign page (403), for a foreign host (421), or without the token (401)."""
    host = request.headers.get("host", "")
    if not config.is_own_host(host):
        # A name that was made to point to this machine would let a foreign page talk to it.
        raise Refused(421, "this server is private to this machine; open it as localhost")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host and origin != config.public_origin:
        raise Refused(403, "this request comes from a foreign page")
    path = request.scope["path"]  # as it is routed; request.url is made of what the Host header says
    if config.token is None or path in OPEN or path.startswith(OPEN_BELOW):
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), config.token.encode()):
        raise Refused(401, "the link is not complete: open the one that was printed when the server started")


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Refuses one that is larger than `limit` bytes (413) or does not come in time (408)."""
    said = request.headers.get("content-length", "0")
    if not said.isdecimal() or int(said) > limit:
        raise Refused(413, f"that is more than {limit / 1e6:g} MB, the most that is taken here")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise Refused(413, f"that is more than {limit / 1e6:g} MB, the most that is taken here")
    except TimeoutError as error:
        raise Refused(408, "the rest of the request did not come") from error
    return bytes(body)


async def read_json(request: Request) -> dict[str, Any]:
    """A JSON object of at most JSON_BYTES. Refuses anything else (400, 413)."""
    try:
        body = json.loads(await read_body(request, JSON_BYTES) or b"{}")
    except (ValueError, RecursionError) as error:
        raise Refused(400, "this is not JSON") from error
    if not isinstance(body, dict):
        raise Refused(400, "a JSON object is expected")
    return body
