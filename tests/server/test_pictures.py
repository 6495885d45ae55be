import io
import struct
import zlib
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from server_fakes import OFFER, SHAPE, SIZE, fake_app, png

from talkingmachines.errors import MediaError
from talkingmachines.media.image import fit_image
from talkingmachines.server import pictures as pictures_module
from talkingmachines.server import routes
from talkingmachines.server.pictures import LOOKS, Pictures, bundled_characters, bundled_picture

UPLOAD = "/api/pictures?consent=yes"


@pytest.fixture(name="client")
def _client():
    with TestClient(fake_app(), base_url="http://localhost") as client:
        yield client


def bomb():
    """A PNG of a few kilobytes that says it is 60000 pixels wide and high."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


def test_a_picture_of_ones_own_is_called(client):
    uploaded = client.post(UPLOAD, content=png()).json()
    shown = client.get(uploaded["src"])
    assert shown.headers["content-type"] == "image/png" and shown.content.startswith(b"\x89PNG")
    path = f"/api/calls/{client.post('/api/calls', json={'character': uploaded['id']}).json()['id']}"
    assert client.post(f"{path}/offer", json=OFFER).status_code == 200
    (call,) = client.app.state.calls.active.values()
    assert call.pixels.shape == (SIZE, SIZE, 3)


def test_a_picture_is_shown_and_called_as_calls_cut_it(monkeypatch):
    monkeypatch.setattr(pictures_module, "MAX_SIDE", 100)
    seen = []

    def corner(pixels):
        seen.append(pixels.shape)
        return pixels[:SIZE, :SIZE]

    with TestClient(fake_app(fit=corner), base_url="http://localhost") as client:
        uploaded = client.post(UPLOAD, content=png(200, 160)).json()
        shown = np.asarray(Image.open(io.BytesIO(client.get(uploaded["src"]).content)))
        client.post("/api/calls", json={"character": uploaded["id"]})
        (call,) = client.app.state.calls.active.values()
    assert seen == [(100, 125, 3)]  # a smaller copy of a large picture
    assert shown.shape == (SIZE, SIZE, 3) and np.array_equal(call.pixels, shown)


def test_a_long_picture_keeps_its_shorter_side(monkeypatch):
    monkeypatch.setattr(pictures_module, "MAX_SIDE", 100)
    seen = []
    pictures = Pictures(lambda pixels: seen.append(pixels.shape) or pixels)
    pictures.add(png(900, 90))
    assert seen == [(90, 900, 3)]


def test_the_servers_own_picture_may_be_a_large_file(monkeypatch):
    monkeypatch.setattr(pictures_module, "MAX_BYTES", 100)
    pictures = Pictures(lambda pixels: pixels)
    with pytest.raises(MediaError, match="larger"):
        pictures.add(png())
    assert pictures.get(pictures.add(png(), for_good=True)).shape == (60, 80, 3)


@pytest.mark.parametrize("query", ["", "?consent=no", "?consent=", "?consent=true"])
def test_without_consent_nothing_is_taken(client, query):
    answer = client.post(f"/api/pictures{query}", content=png())
    assert answer.status_code == 400 and "agree" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 422),
        (b"this is no picture", 422),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='99' height='99'/></svg>", 422),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", 422),
        (png()[:-900], 422),
        (png(8, 8), 422),
        (bomb(), 422),
        (bytes(50_000_000), 413),
    ],
    ids=["empty", "text", "svg", "eps", "truncated", "small", "bomb", "50 MB"],
)
def test_rubbish_is_refused_in_one_line(client, data, status):
    answer = client.post(UPLOAD, content=data)
    detail = answer.json()["detail"]
    assert answer.status_code == status and "\n" not in detail and "/tmp" not in detail
    assert detail.startswith(("the picture ", "that is more"))
    assert client.post(UPLOAD, content=png()).status_code == 201


def test_too_many_at_once_are_told_to_wait(monkeypatch):
    monkeypatch.setattr(routes, "MAX_UPLOADS", 0)
    with TestClient(fake_app(), base_url="http://localhost") as client:
        answer = client.post(UPLOAD, content=png())
    assert answer.status_code == 503 and answer.headers["retry-after"]


@given(cut=st.integers(0, 400), noise=st.binary(max_size=60), where=st.integers(0, 300))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_get_an_answer(client, cut, noise, where):
    data = png(20, 20)[: 1300 - cut]
    assert client.post(UPLOAD, content=data[:where] + noise + data[where + len(noise) :]).status_code in (201, 422)


def test_nothing_is_left_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pictures = Pictures(partial(fit_image, size=SHAPE))
    pictures.add(png())
    with pytest.raises(MediaError):
        pictures.add(b"nothing")
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_uses_is_forgotten(monkeypatch):
    pictures = Pictures(partial(fit_image, size=SHAPE))
    kept, own = pictures.add(png()), pictures.add(png(), for_good=True)
    assert pictures.get(kept).shape == (SIZE, SIZE, 3)
    monkeypatch.setattr(pictures_module, "MINUTES", -1)
    with pytest.raises(MediaError, match="not there any more"):
        pictures.get(kept)
    assert pictures.get(own) is not None


def test_a_picture_is_kept_while_it_is_called_and_then_forgotten(client, monkeypatch):
    moment = [0.0]
    monkeypatch.setattr(pictures_module, "time", SimpleNamespace(monotonic=lambda: moment[0]))
    uploaded = client.post(UPLOAD, content=png()).json()
    path = f"/api/calls/{client.post('/api/calls', json={'character': uploaded['id']}).json()['id']}"
    calls = client.app.state.calls
    for moment[0] in (800.0, 1600.0, 2400.0):
        client.portal.call(calls._look_after)
    assert len(calls.pictures._kept) == 1
    client.post(f"{path}/end")
    moment[0] = 3400.0
    client.portal.call(calls._look_after)
    assert not calls.pictures._kept, "and nobody has asked for one since"


def test_not_more_than_so_many_are_kept(monkeypatch):
    monkeypatch.setattr(pictures_module, "KEPT", 3)
    pictures = Pictures(partial(fit_image, size=SHAPE))
    names = [pictures.add(png()) for _ in range(5)]
    for name in names[:2]:
        with pytest.raises(MediaError):
            pictures.get(name)
    assert all(pictures.get(name) is not None for name in names[2:])


def test_the_characters_of_the_package():
    characters = bundled_characters()
    assert tuple(characters) == LOOKS and sum(len(data) for _, data in characters.values()) < 200_000
    for name in LOOKS:
        picture = bundled_picture(name)
        assert picture.shape == (512, 512, 3) and picture.dtype == np.uint8
