"""Real connections, by aiortc on both sides; the call itself is a fake."""

import asyncio

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_fakes import fake_app
from webrtc_peer import Peer

from talkingmachines.server.webrtc import WebRTCSignalling


async def connects(connection, call):
    """A call that only says hello."""
    await connection.connect()
    connection.send_app_message({"label": "rtvi-ai", "type": "bot-ready"})
    await asyncio.Event().wait()


@pytest.fixture(name="client", scope="module")
def _client():
    with TestClient(fake_app(connects, WebRTCSignalling, max_calls=3), base_url="http://localhost") as client:
        yield client


def test_a_call_is_connected_lost_and_found_again(client):
    peer = Peer(client)
    peer.connect()
    peer.wait_until(peer.call.connection.is_connected)
    call, old = peer.call, peer.pc
    peer.connect()
    peer.wait_until(peer.call.connection.is_connected)
    assert peer.call is call and client.post(f"{peer.path}/report", json={}).status_code == 200
    assert client.post(f"{peer.path}/end").status_code == 200
    peer.wait_until(lambda: any(m.get("message", {}).get("type") == "peerLeft" for m in peer.messages))
    assert peer.call is None
    peer.close()
    client.portal.call(old.close)


def test_what_is_sent_while_the_line_is_made_arrives(client):
    peer = Peer(client)
    peer.connect()
    peer.wait_until(lambda: {"label": "rtvi-ai", "type": "bot-ready"} in peer.messages)
    client.post(f"{peer.path}/end")
    peer.close()


def test_a_description_without_sound_begins_no_call(client):
    peer = Peer(client)
    answer = client.post(f"{peer.path}/offer", json={"type": "offer", "sdp": "v=0\r\nnothing"})
    assert answer.status_code == 400 and peer.call.task is None
    peer.connect()
    peer.wait_until(peer.call.connection.is_connected)
    client.post(f"{peer.path}/end")
    peer.close()


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_description_gets_an_answer_and_no_call_is_left(client, data):
    peer = Peer(client)
    sdp = client.portal.call(peer._offer)["sdp"]
    lines = sdp.splitlines()
    for _ in range(data.draw(st.integers(1, 6))):
        where = data.draw(st.integers(0, len(lines) - 1))
        lines[where] = data.draw(
            st.sampled_from(["", "m=audio", "a=fingerprint:x", "v=9", lines[where][:-3]]) | st.text()
        )
    answer = client.post(f"{peer.path}/offer", json={"type": "offer", "sdp": "\r\n".join(lines)})
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert "\n" not in answer.json()["detail"]
    client.post(f"{peer.path}/end")
    peer.close()
    assert peer.call is None


@pytest.mark.parametrize("candidate", [{"candidate": "x", "sdp_mid": "0", "sdp_mline_index": 0}, {"a": 1}, 3, None])
def test_bad_candidates_are_answered(client, candidate):
    peer = Peer(client)
    assert client.patch(f"{peer.path}/offer", json={"candidates": [candidate]}).status_code == 400
    peer.connect()
    assert client.patch(f"{peer.path}/offer", json={"candidates": [candidate]}).status_code == 400
    assert client.post(f"{peer.path}/end").status_code == 200
    peer.close()
