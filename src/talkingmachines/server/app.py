"""The web application: the page, its few questions, and what an operator looks at."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from talkingmachines.media.image import fit_image
from talkingmachines.server.calls import Calls, MakeCall, Signalling
from talkingmachines.server.config import ServerConfig
from talkingmachines.server.guard import Refused, check
from talkingmachines.server.metrics import Metrics
from talkingmachines.server.pictures import Pictures, bundled_characters
from talkingmachines.server.recording import HANGS
from talkingmachines.server.recordings import Recordings
from talkingmachines.server.routes import Choice, add_calls, add_pictures, add_presence
from talkingmachines.server.threads import on_a_thread

PAGE = {"index.html": "text/html", "style.css": "text/css", "favicon.svg": "image/svg+xml"} | {
    name: "text/javascript" for name in ("call.js", "line.js", "view.js", "panel.js")
}

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def build_app(
    config: ServerConfig,
    make_call: MakeCall,
    make_signalling: Callable[[], Signalling],
    shape: tuple[int, int],
    own_picture: bytes | None = None,
    name: str = "the character",
    voice: str = "",
    fit: Callable[[np.ndarray], np.ndarray] | None = None,
) -> FastAPI:
    """shape: height and width of the character's pictures in pixels, even; own_picture: a picture's file that is
    offered first. name: the character's; voice: what speaks, shown on the page. fit: cuts pictures as calls do, see
    Avatar.fit; to the largest centred part unless given.

    make_call runs each call, make_signalling connects it: with others in their place the whole application works
    without WebRTC and without models.
    """
    metrics = Metrics(config.max_calls)
    pictures = Pictures(fit or partial(fit_image, size=shape))
    recordings = Recordings(config.record, shape, name, metrics.errors.labels("recording").inc)
    first = pictures.add(own_picture, for_good=True) if own_picture is not None else None
    calls = Calls(make_call, make_signalling, config.max_calls, metrics, recordings, pictures)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(calls.watch())
        yield
        watch.cancel()
        await calls.close()
        with contextlib.suppress(TimeoutError):  # what is left on a disk that hangs is left there
            async with asyncio.timeout(HANGS):
                await on_a_thread(recordings.close)

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.calls = calls

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[..., Any]) -> Response:
        try:
            check(request, config)
            response: Response = await answer(request)
        except Refused as error:
            response = error.response()
        for header, value in HEADERS.items():
            response.headers.setdefault(header, value)
        return response

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return error.response()

    _operation(app, calls, metrics)
    _page(app)
    height, width = shape
    about = {"name": name, "voice": voice, "recorded": config.record is not None, "aspect": width / height}
    choice = Choice(first, about, config.ice_servers)
    add_pictures(app, pictures, choice, metrics)
    add_calls(app, calls, pictures)
    add_presence(app, calls)
    return app


def _operation(app: FastAPI, calls: Calls, metrics: Metrics) -> None:
    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> Response:
        free = calls.max_calls - len(calls.active)
        return JSONResponse({"status": "ready" if free > 0 else "busy", "free": free}, 200 if free > 0 else 503)

    @app.get("/metrics")
    async def figures() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _page(app: FastAPI) -> None:
    folder = files("talkingmachines") / "server" / "page"
    page = {name: (folder / name).read_bytes() for name in PAGE}
    characters = bundled_characters()

    @app.get("/")
    async def index() -> Response:
        return Response(page["index.html"], media_type=PAGE["index.html"])

    @app.get("/page/{name}")
    async def asset(name: str) -> Response:
        if name not in page:
            raise Refused(404, "there is no such file")
        return Response(page[name], media_type=PAGE[name])

    @app.get("/characters/{name}.webp")
    async def character(name: str) -> Response:
        if name not in characters:
            raise Refused(404, "there is no such character")
        return Response(characters[name][1], media_type="image/webp", headers={"Cache-Control": "max-age=3600"})
