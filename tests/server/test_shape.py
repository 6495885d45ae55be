"""A picture that is no square, from the upload to the recording, with everything real but the weights."""

import asyncio
import io
from dataclasses import replace

import av
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from server_fakes import fake_app, png
from webrtc_peer import Peer

from talkingmachines.avatar import Avatar
from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.webrtc import transport_params
from talkingmachines.dit.model import DiT
from talkingmachines.evaluation.random_avatar import random_features
from talkingmachines.presets import tiny
from talkingmachines.server.live import live_call
from talkingmachines.server.webrtc import WebRTCSignalling
from talkingmachines.vae.model import CausalVAE

SHAPE = HEIGHT, WIDTH = 96, 64


@pytest.fixture(name="avatar")
def _avatar():
    torch.manual_seed(0)
    spec = replace(tiny(), finds_face=True)
    return Avatar(
        spec, CausalVAE(spec.vae), DiT(spec.dit), torch.device("cpu"), features=random_features(spec), shape=SHAPE
    )


def test_an_upload_is_cut_to_the_shape_and_the_page_knows_it():
    with TestClient(fake_app(shape=SHAPE), base_url="http://localhost") as client:
        assert client.get("/api/config").json()["aspect"] == pytest.approx(2 / 3)
        uploaded = client.post("/api/pictures?consent=yes", content=png(300, 200)).json()
        with Image.open(io.BytesIO(client.get(uploaded["src"]).content)) as shown:
            assert shown.size == (WIDTH, HEIGHT)
        client.post("/api/calls", json={"character": uploaded["id"]})
        (call,) = client.app.state.calls.active.values()
        assert call.pixels.shape == (HEIGHT, WIDTH, 3)
        assert "--aspect" in client.get("/page/style.css").text and "--aspect" in client.get("/page/call.js").text


def test_the_transport_is_told_width_and_height():
    params = transport_params(SHAPE)
    assert (params.video_out_width, params.video_out_height) == (WIDTH, HEIGHT)


def test_a_call_is_shown_and_recorded_in_the_shape(avatar, tmp_path, monkeypatch):
    boxes, opened = [], avatar.engine.open
    monkeypatch.setattr(
        avatar.engine, "open", lambda image, seed, box, **told: (boxes.append(box), opened(image, seed, box, **told))[1]
    )
    make_call = live_call(avatar, avatar.chunk_frames, CallOptions(voice="echo"), (0, 0, 1, 0.5))
    app = fake_app(make_call, WebRTCSignalling, SHAPE, record=tmp_path)
    with TestClient(app, base_url="http://localhost") as client:
        peer = Peer(client)
        peer.connect()
        seen = [peer.run(receive, peer) for _ in range(12)]
        client.post(f"{peer.path}/end")
        peer.close()
    assert {(frame.width, frame.height) for frame in seen} == {(WIDTH, HEIGHT)}
    (path,) = tmp_path.iterdir()
    with av.open(str(path)) as file:
        assert {(frame.width, frame.height) for frame in file.decode(video=0)} == {(WIDTH, HEIGHT)}
    assert boxes == [(0, 0, 1, 0.5)]


async def receive(peer):
    return await asyncio.wait_for(peer.tracks["video"].recv(), 30)
