"""Offers and answers, by pipecat."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import HTTPException
from pipecat.transports.smallwebrtc.connection import IceServer as PipecatIceServer
from pipecat.transports.smallwebrtc.request_handler import (
    IceCandidate,
    SmallWebRTCPatchRequest,
    SmallWebRTCRequest,
    SmallWebRTCRequestHandler,
)

from talkingmachines.server.config import IceServer


class WebRTCSignalling:
    """One call's. A handler for each call, so that all it remembers goes with the call."""

    def __init__(self, ice_servers: Sequence[IceServer] = ()) -> None:
        servers = [
            PipecatIceServer(urls=server["urls"], username=server.get("username"), credential=server.get("credential"))
            for server in ice_servers
        ]
        self._handler = SmallWebRTCRequestHandler(ice_servers=servers)
        self._pc_id = ""

    async def offer(self, offer: dict[str, Any], connected: Callable[[Any], Awaitable[None]]) -> dict[str, str]:
        """The answer, with the connection's pc_id. Raises what aiortc raises for an offer that is none, and ValueError
        for one without sound: aiortc would answer it, and nobody could ever be connected.
        """
        if "\nm=audio " not in offer["sdp"]:
            raise ValueError("the offer has no sound")
        request = SmallWebRTCRequest(offer["sdp"], offer["type"], offer.get("pc_id"), offer.get("restart_pc"))
        answer = await self._handler.handle_web_request(request, connected)
        if answer is None:
            raise HTTPException(400, "there is no answer to this offer")
        self._pc_id = answer["pc_id"]
        return answer

    async def candidates(self, candidates: list[dict[str, Any]]) -> None:
        """Each as pipecat's IceCandidate: candidate, sdp_mid, sdp_mline_index."""
        known = [IceCandidate(**candidate) for candidate in candidates]
        await self._handler.handle_patch_request(SmallWebRTCPatchRequest(self._pc_id, known))
