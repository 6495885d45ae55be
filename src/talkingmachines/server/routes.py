"""What the page asks for: pictures to call, and calls."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse

from talkingmachines.errors import MediaError
from talkingmachines.server.calls import Busy, Call, Calls, Foreign
from talkingmachines.server.config import IceServer
from talkingmachines.server.guard import Refused, read_body, read_json
from talkingmachines.server.metrics import Metrics
from talkingmachines.server.pictures import MAX_BYTES, Pictures, bundled_characters, bundled_picture
from talkingmachines.server.threads import on_a_thread

MAX_CANDIDATES = 50
MAX_UPLOADS = 8
"""Pictures that may be on their way at the same time."""


@dataclass(frozen=True)
class Choice:
    """What the page offers. first: the name of a picture that comes before the others; about: shown on the page."""

    first: str | None
    about: dict[str, Any]
    ice_servers: Sequence[IceServer]


def add_pictures(app: FastAPI, pictures: Pictures, choice: Choice, metrics: Metrics) -> None:
    """What can be called, and bringing a picture of one's own."""

    @app.get("/api/config")
    async def settings() -> dict[str, Any]:
        first = choice.first
        own = [{"id": f"picture:{first}", "name": "Your picture", "src": f"/api/pictures/{first}"}] if first else []
        bundled = [
            {"id": f"character:{name}", "name": words, "src": f"/characters/{name}.webp"}
            for name, (words, _) in bundled_characters().items()
        ]
        return {
            "characters": own + bundled,
            "iceServers": list(choice.ice_servers),
            "maxUpload": MAX_BYTES,
        } | choice.about

    uploads = asyncio.Semaphore(MAX_UPLOADS)
    unpacking = asyncio.Lock()  # one at a time: a picture of a few kilobytes can take hundreds of megabytes to unpack

    @app.post("/api/pictures", status_code=201)
    async def upload(request: Request) -> dict[str, str]:
        if request.query_params.get("consent") != "yes":
            raise Refused(400, "the person in the picture has to agree first: send consent=yes when they do")
        if uploads.locked():
            raise Refused(503, "many pictures are being sent just now; try again in a moment", {"Retry-After": "10"})
        try:
            async with uploads:
                data = await read_body(request, MAX_BYTES)
                async with unpacking:
                    name = await asyncio.to_thread(pictures.add, data)
        except MediaError as error:
            metrics.errors.labels("upload").inc()
            raise Refused(422, str(error)) from error
        return {"id": f"picture:{name}", "src": f"/api/pictures/{name}"}

    @app.get("/api/pictures/{name}")
    async def picture(name: str) -> Response:
        try:
            return Response(await asyncio.to_thread(pictures.png, name), media_type="image/png")
        except MediaError as error:
            raise Refused(404, str(error)) from error


def add_calls(app: FastAPI, calls: Calls, pictures: Pictures) -> None:
    """A place for a call, and its connection."""

    @app.post("/api/calls", status_code=201)
    async def begin(request: Request) -> dict[str, str]:
        pixels = _picture(pictures, (await read_json(request)).get("character"))
        try:
            return {"id": calls.reserve(pixels).id}
        except Busy as error:
            raise Refused(503, str(error), {"Retry-After": "30"}) from error

    @app.post("/api/calls/{identity}/offer")
    async def offer(identity: str, request: Request) -> dict[str, str]:
        body, call = await read_json(request), _call(calls, identity)
        if body.get("type") != "offer" or not isinstance(body.get("sdp"), str):
            raise Refused(400, 'this is no offer: it needs type "offer" and sdp')
        await calls.settled(call)
        call = _call(calls, identity)
        try:
            return await calls.offer(call, body)
        except Foreign as error:
            raise Refused(409, str(error)) from error
        except Exception as error:  # aiortc raises errors of any type for a description that is none
            calls.metrics.errors.labels("signalling").inc()
            raise Refused(400, "the offer cannot be answered; reload the page and try again") from error

    @app.patch("/api/calls/{identity}/offer", status_code=204)
    async def candidates(identity: str, request: Request) -> None:
        found, call = (await read_json(request)).get("candidates"), _call(calls, identity)
        if not isinstance(found, list) or len(found) > MAX_CANDIDATES:
            raise Refused(400, f"candidates must be a list of at most {MAX_CANDIDATES}")
        try:
            await call.signalling.candidates(found)
        except Exception as error:  # as above
            calls.metrics.errors.labels("signalling").inc()
            raise Refused(400, "these are no candidates") from error


def add_presence(app: FastAPI, calls: Calls) -> None:
    """What a page says while its call goes on, and its end."""

    @app.post("/api/calls/{identity}/report")
    async def report(identity: str, request: Request) -> dict[str, Any]:
        figures, call = await read_json(request), _call(calls, identity)
        calls.metrics.report(call, figures)
        return calls.metrics.of_call(call) | {"recording": call.recorder is not None and not call.recorder.failure}

    @app.post("/api/calls/{identity}/recording")
    async def record(identity: str, request: Request) -> dict[str, Any]:
        on, call = (await read_json(request)).get("on") is True, _call(calls, identity)
        if calls.recordings.always and not on:
            raise Refused(403, "every call is recorded here")
        try:
            finished = await calls.record(call, on)
        except MediaError as error:
            raise Refused(507, str(error)) from error
        return {"recording": call.recorder is not None, "finished": finished}

    @app.post("/api/calls/{identity}/end")
    async def end(identity: str) -> dict[str, Any]:
        call = _call(calls, identity)
        await calls.end(call, "you hung up")
        return {"finished": call.recorded}

    @app.get("/api/recordings/{name}")
    async def recording(name: str) -> Response:
        path = calls.recordings.path(name)
        if path is None or not await on_a_thread(path.exists):
            raise Refused(404, "there is no such recording, or not any more")
        return FileResponse(path, media_type="video/mp4", filename=name)


def _call(calls: Calls, identity: str) -> Call:
    if call := calls.active.get(identity):
        return call
    if (ended := calls.ended(identity)) is not None:
        raise Refused(410, ended.reason, finished=ended.recorded)
    raise Refused(404, "there is no such call")


def _picture(pictures: Pictures, choice: object) -> np.ndarray:
    kind, _, name = choice.partition(":") if isinstance(choice, str) else ("", "", "")
    try:
        return bundled_picture(name) if kind == "character" else pictures.get(name)
    except MediaError as error:
        raise Refused(404, str(error)) from error
