"""A page without a browser."""

import asyncio
import contextlib
import json
import sys
import time

import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from anyio.from_thread import start_blocking_portal
from server_fakes import CHARACTER

SECONDS = 20


class Peer:
    """What the page does, on the loop that the server runs on."""

    def __init__(self, client, microphone=AudioStreamTrack):
        self.client, self.messages, self.tracks, self.microphone = client, [], {}, microphone
        self.path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        self.pc_id = self.pc = None

    def run(self, what, *arguments):
        return self.client.portal.call(what, *arguments)

    def connect(self):
        offer = self.run(self._offer)
        restart = {"pc_id": self.pc_id, "restart_pc": True} if self.pc_id else {}
        answer = self.client.post(f"{self.path}/offer", json={**offer, **restart})
        assert answer.status_code == 200, answer.text
        self.pc_id = answer.json()["pc_id"]
        self.run(self._accept, answer.json())

    async def _offer(self):
        self.pc = RTCPeerConnection()
        self.pc.addTrack(self.microphone())
        self.pc.on("track", lambda track: self.tracks.__setitem__(track.kind, track))
        self.pc.addTransceiver("video", direction="recvonly")
        self.channel = self.pc.createDataChannel("rtvi")
        self.opened = asyncio.Event()
        self.channel.on("open", self.opened.set)
        self.channel.on("message", lambda text: self.messages.append(json.loads(text)))
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return {"sdp": self.pc.localDescription.sdp, "type": "offer"}

    async def _accept(self, answer):
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        await asyncio.wait_for(self.opened.wait(), SECONDS)
        self.pings = asyncio.create_task(self._ping())

    async def _ping(self):
        """Without them for 3 s the server takes the line for dead."""
        while self.channel.readyState == "open":
            self.channel.send("ping: 1")
            await asyncio.sleep(0.5)

    def close(self):
        with contextlib.suppress(Exception):
            self.run(self.pc.close)

    @property
    def call(self):
        return self.client.app.state.calls.active.get(self.path.rsplit("/", 1)[1])

    def wait_until(self, what):
        async def wait():
            async with asyncio.timeout(SECONDS):
                while not what():
                    await asyncio.sleep(0.02)

        self.run(wait)


def main(link: str, number: str) -> None:
    """So many peers in a process of their own, until it is killed."""
    with start_blocking_portal() as portal, httpx.Client(base_url=link) as client:
        client.portal = portal
        for _ in range(int(number)):
            Peer(client).connect()
        time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
