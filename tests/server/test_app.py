import asyncio
import json
import time

import numpy as np
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_fakes import CHARACTER, OFFER, FakeConnection, FakeSignalling, fake_app

from talkingmachines.errors import SessionError
from talkingmachines.server import calls as calls_module
from talkingmachines.server.config import ServerConfig
from talkingmachines.server.guard import Refused, check


@pytest.fixture(name="client")
def _client():
    with TestClient(fake_app(), base_url="http://localhost") as client:
        yield client


def begin(client):
    """A call that goes on; its path and the answer to its offer."""
    path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
    answer = client.post(f"{path}/offer", json=OFFER)
    assert answer.status_code == 200
    return path, answer.json()


def wait_until(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_health(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "free": 1}


def test_a_call_from_beginning_to_end(client):
    path, answer = begin(client)
    assert answer == {"type": "answer", "sdp": "v=0", "pc_id": "pc-1"}
    candidates = {"candidates": [{"candidate": "candidate:1", "sdp_mid": "0", "sdp_mline_index": 0}]}
    assert client.patch(f"{path}/offer", json=candidates).status_code == 204
    assert client.post(f"{path}/report", json={"fps": 25}).json()["late"] == 0
    assert client.post(f"{path}/end").json() == {"finished": []}
    again = client.post(f"{path}/end")
    assert (again.status_code, again.json()["detail"]) == (410, "you hung up")
    assert client.app.state.calls.active == {}


def test_the_caller_who_is_one_too_many_is_told_and_disturbs_nobody(client):
    path, _ = begin(client)
    refused = client.post("/api/calls", json=CHARACTER)
    assert refused.status_code == 503 and "busy" in refused.json()["detail"] and refused.headers["retry-after"]
    assert client.get("/readyz").status_code == 503
    assert client.post(f"{path}/report", json={}).status_code == 200
    client.post(f"{path}/end")
    assert client.post("/api/calls", json=CHARACTER).status_code == 201


def test_a_caller_comes_back_into_the_same_call(client):
    path, answer = begin(client)
    back = client.post(f"{path}/offer", json={**OFFER, "pc_id": answer["pc_id"], "restart_pc": True})
    assert back.json()["pc_id"] == "pc-2"
    assert len(client.app.state.calls.active) == 1
    replayed = client.post(f"{path}/offer", json={**OFFER, "pc_id": answer["pc_id"]})
    assert replayed.status_code == 409
    assert client.post(f"{path}/offer", json=OFFER).status_code == 409


def test_a_caller_whose_answer_was_lost_asks_again(client):
    path, answer = begin(client)
    restart = {**OFFER, "pc_id": answer["pc_id"], "restart_pc": True}
    assert [client.post(f"{path}/offer", json=restart).json()["pc_id"] for _ in range(2)] == ["pc-2", "pc-3"]
    older = {**restart, "pc_id": "pc-2"}
    assert client.post(f"{path}/offer", json=older).status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/calls", {}, 404),
        ("POST", "/api/calls", {"character": "character:nobody"}, 404),
        ("POST", "/api/calls", {"character": "character:../demo"}, 404),
        ("POST", "/api/calls", {"character": ["red-scarf"]}, 404),
        ("POST", "/api/calls", [1], 400),
        ("POST", "/api/calls/nothing/offer", OFFER, 404),
        ("POST", "/api/calls/nothing/end", {}, 404),
        ("GET", "/api/recordings/..%2f..%2fetc%2fpasswd", None, 404),
        ("GET", "/api/pictures/nothing", None, 404),
        ("GET", "/page/..%2fapp.py", None, 404),
        ("GET", "/page/app.py", None, 404),
        ("GET", "/characters/..%2fdemo.webp", None, 404),
        ("GET", "/docs", None, 404),
    ],
)
def test_what_is_not_there(client, method, path, body, status):
    assert client.request(method, path, json=body).status_code == status
    assert client.app.state.calls.active == {}


@pytest.mark.parametrize("body", [{}, {"type": "offer"}, {"type": "answer", "sdp": "v=0"}, {"type": "offer", "sdp": 3}])
def test_what_is_no_offer(client, body):
    path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
    assert client.post(f"{path}/offer", json=body).status_code == 400


def test_a_bad_offer_is_answered_and_the_next_one_works(client):
    path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
    assert client.post(f"{path}/offer", json={"type": "offer", "sdp": "bad"}).status_code == 400
    assert client.patch(f"{path}/offer", json={"candidates": [{"x": 1}]}).status_code == 400
    assert client.patch(f"{path}/offer", json={"candidates": [{}] * 51}).status_code == 400
    assert client.post(f"{path}/offer", json=OFFER).status_code == 200
    assert 'talkingmachines_errors_total{where="signalling"} 2.0' in client.get("/metrics").text


def test_giant_and_broken_messages(client):
    assert client.post("/api/calls", content=b"{" * 65_000).status_code == 413
    assert client.post("/api/calls", content=b"[" * 60_000).status_code == 400
    assert client.post("/api/calls", content=b"\xff\x00").status_code == 400
    assert client.post("/api/calls", content=b"", headers={"content-length": "-4"}).status_code in (400, 413)


def test_a_body_that_does_not_say_how_long_it_is_is_cut_off(client):
    parts = iter([b" " * 40_000] * 10)
    assert client.post("/api/calls", content=parts).status_code == 413


@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_gets_an_answer(client, body):
    content = json.dumps(body).encode()
    begin_or_not = client.post("/api/calls", content=content)
    assert begin_or_not.status_code in (400, 404)
    for path in ("offer", "report", "recording"):
        assert client.post(f"/api/calls/x/{path}", content=content).status_code in (400, 404)


def test_foreign_pages_and_foreign_names_are_refused(client):
    foreign = client.post("/api/calls", json=CHARACTER, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert client.post("/api/calls", json=CHARACTER, headers={"origin": "null"}).status_code == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    own = client.post("/api/calls", json=CHARACTER, headers={"origin": "http://localhost"})
    assert own.status_code == 201


def test_off_loopback_a_token_is_demanded():
    config = {"host": "0.0.0.0", "port": 7860, "token": "secret"}
    with TestClient(fake_app(**config), base_url="http://192.0.2.7:7860") as client:
        assert client.get("/").status_code == client.get("/healthz").status_code == 200
        for path in ("/api/config", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"authorization": "Bearer secreT"}).status_code == 401
            assert client.get(path, headers={"authorization": "Bearer ü".encode()}).status_code == 401
            assert client.get(path, headers={"authorization": "Bearer secret"}).status_code == 200
        assert client.post("/api/calls", json=CHARACTER).status_code == 401


@pytest.mark.parametrize(("host", "query"), [(b"x/page/?", b""), (b"x", b"\xff")])
def test_what_is_asked_for_is_what_is_routed_whatever_the_rest_says(host, query):
    request = Request({"type": "http", "path": "/api/calls", "query_string": query, "headers": [(b"host", host)]})
    with pytest.raises(Refused, match="link is not complete"):
        check(request, ServerConfig("0.0.0.0", token="secret"))


@pytest.mark.parametrize("url", ["https://call.example.org/", "https://Call.Example.org:443"])
def test_behind_a_proxy_that_says_another_host(url):
    config = {"public_url": url, "token": "secret"}
    headers = {"authorization": "Bearer secret", "origin": "https://call.example.org"}
    with TestClient(fake_app(**config), base_url="http://localhost:7860") as client:
        assert client.post("/api/calls", json=CHARACTER, headers=headers).status_code == 201
        headers["origin"] = "https://call.example.com"
        assert client.post("/api/calls", json=CHARACTER, headers=headers).status_code == 403


def test_the_link():
    assert ServerConfig(port=80).link == "http://localhost:80/" and ServerConfig().token is None
    away = ServerConfig("0.0.0.0", 80)
    assert away.token and away.link == f"http://localhost:80/#token={away.token}", "one that opens"
    assert ServerConfig("0.0.0.0").token != away.token
    proxied = ServerConfig(public_url="https://call.example.org/")
    assert proxied.link == f"https://call.example.org/#token={proxied.token}"


def test_a_call_that_fails_ends_with_a_reason():
    async def fails(connection, call):
        raise SessionError("the voice has died")

    async def breaks(connection, call):
        raise ZeroDivisionError

    for make_call, reason in ((fails, "the voice has died"), (breaks, "something went wrong on the server")):
        with TestClient(fake_app(make_call), base_url="http://localhost") as client:
            path, _ = begin(client)
            wait_until(lambda: not client.app.state.calls.active)
            answer = client.post(f"{path}/report", json={})
            assert answer.status_code == 410 and answer.json()["detail"].startswith(reason)
            assert 'talkingmachines_errors_total{where="call"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(("connected", "reason"), [(False, "the caller never came"), (True, "the connection was lost")])
def test_who_vanishes_makes_room(monkeypatch, connected, reason):
    monkeypatch.setattr(calls_module, "CONNECT", 0.1)
    monkeypatch.setattr(calls_module, "LOST", 0.1)
    signalling = FakeSignalling()
    with TestClient(fake_app(make_signalling=lambda: signalling), base_url="http://localhost") as client:
        if connected:
            path, _ = begin(client)
            client.portal.call(client.app.state.calls._look_after)
            signalling.connection.connected = False
        else:
            path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        wait_until(lambda: not client.app.state.calls.active)
        assert client.post(f"{path}/report", json={}).json()["detail"] == reason
        assert not connected or signalling.connection.closed


def test_a_line_that_never_stood_is_not_a_lost_one(monkeypatch):
    """Nor is its call counted."""
    monkeypatch.setattr(calls_module, "LOST", -1.0)
    signalling = FakeSignalling()
    with TestClient(fake_app(make_signalling=lambda: signalling), base_url="http://localhost") as client:
        path, _ = begin(client)
        signalling.connection.connected = False
        client.portal.call(client.app.state.calls._look_after)
        assert "calls_started_total 0.0" in client.get("/metrics").text
        signalling.connection.connected = True
        client.portal.call(client.app.state.calls._look_after)
        assert "calls_started_total 1.0" in client.get("/metrics").text
        signalling.connection.connected = False
        client.portal.call(client.app.state.calls._look_after)
        wait_until(lambda: not client.app.state.calls.active)
        assert client.post(f"{path}/report", json={}).json()["detail"] == "the connection was lost"


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_call_of_less_than_a_second_is_counted(by_itself, monkeypatch):
    over = asyncio.Event()

    async def until_over(connection, call):
        await over.wait()

    monkeypatch.setattr(calls_module.Calls, "_gone", lambda *_: "")  # nobody looks before its end
    with TestClient(fake_app(until_over), base_url="http://localhost") as client:
        path, _ = begin(client)
        if by_itself:
            client.portal.call(over.set)
            wait_until(lambda: not client.app.state.calls.active)
        else:
            client.post(f"{path}/end")
        assert "calls_started_total 1.0" in client.get("/metrics").text


def test_shutdown_ends_the_calls():
    signalling, ended = FakeSignalling(), []

    async def until_cancelled(connection, call):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(call.id)

    with TestClient(fake_app(until_cancelled, lambda: signalling), base_url="http://localhost") as client:
        begin(client)
    assert len(ended) == 1 and signalling.connection.closed


def test_ended_twice_it_is_still_cleaned_up(tmp_path):
    """A page that says goodbye while the server is saying it too."""

    async def ends_twice(calls):
        (call,) = calls.active.values()
        await asyncio.gather(*(calls.end(call, why) for why in ("one", "two", "three")))

    with TestClient(fake_app(record=tmp_path), base_url="http://localhost") as client:
        path, _ = begin(client)
        client.portal.call(ends_twice, client.app.state.calls)
        ended = client.post(f"{path}/report", json={}).json()
        assert ended["detail"] == "one" and ended["finished"] == [next(tmp_path.iterdir()).name]
        assert ended["finished"][0].endswith(".mp4") and ".part." not in ended["finished"][0]


def test_ended_before_its_first_step_it_leaves_no_place_taken():
    async def begins_and_ends(calls):
        call = calls.reserve(np.zeros((8, 8, 3), np.uint8))
        await calls.offer(call, OFFER)
        await calls.end(call, "the caller hung up")
        return call

    with TestClient(fake_app(), base_url="http://localhost") as client:
        call = client.portal.call(begins_and_ends, calls := client.app.state.calls)
        assert not calls.active and call.connection.closed and calls.ended(call.id).reason == "the caller hung up"


def test_nothing_begins_in_a_call_that_is_ending():
    signalling, asked = FakeSignalling(), {}

    async def slowly():
        asked["recording"] = await app.state.calls.record(call, on=True) or call.recorder
        signalling.connection.closed = True

    with TestClient(app := fake_app(make_signalling=lambda: signalling), base_url="http://localhost") as client:
        path, _ = begin(client)
        (call,) = app.state.calls.active.values()
        signalling.connection.disconnect = slowly
        client.post(f"{path}/end")
    assert asked == {"recording": None} and signalling.connection.closed


def test_an_offer_that_is_answered_while_its_call_ends_begins_nothing():
    connection = FakeConnection()

    class Slow(FakeSignalling):
        async def offer(self, offer, connected):
            ending = asyncio.create_task(app.state.calls.end(call, "you hung up"))
            await asyncio.sleep(0)
            await connected(connection)
            await ending
            return {}

    with TestClient(app := fake_app(make_signalling=Slow), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        (call,) = app.state.calls.active.values()
        client.post(f"{path}/recording", json={"on": True})  # so that it takes time to end
        client.post(f"{path}/offer", json=OFFER)
        assert connection.closed and call.task is None and not app.state.calls.active


def test_a_connection_that_comes_while_its_call_ends_by_itself_begins_nothing():
    first, second, run = FakeConnection(), FakeConnection(), []

    class Renews(FakeSignalling):
        async def offer(self, offer, connected):
            await connected(first)
            await connected(second)
            return {"pc_id": "pc-1"}

    async def note(connection, call):
        run.append(connection)
        await asyncio.Event().wait()

    with TestClient(app := fake_app(note, Renews), base_url="http://localhost") as client:
        begin(client)
        (call,) = app.state.calls.active.values()
        wait_until(lambda: run)
        assert run == [first] and call.connection is first and second.closed


def test_a_report_that_comes_when_its_call_is_over_is_nobodys(client):
    path, _ = begin(client)
    calls = client.app.state.calls
    (call,) = calls.active.values()

    def body():
        calls._forget(call)
        yield b'{"fps": 3}'

    assert client.post(f"{path}/report", content=body()).status_code == 410
    assert not calls.metrics._seen
    call.task.cancel()


def test_of_two_first_offers_one_begins_the_call():
    seen = []

    async def note(connection, call):
        seen.append(call)
        await asyncio.Event().wait()

    async def both(calls):
        (call,) = calls.active.values()
        return await asyncio.gather(*(calls.offer(call, OFFER) for _ in range(2)), return_exceptions=True)

    with TestClient(fake_app(note), base_url="http://localhost") as client:
        client.post("/api/calls", json=CHARACTER)
        answers = client.portal.call(both, client.app.state.calls)
        assert isinstance(answers[1], calls_module.Foreign) and answers[0]["pc_id"] == "pc-1"
        wait_until(lambda: len(seen) == 1)


def test_ten_calls_that_are_dropped_leave_nothing(monkeypatch):
    monkeypatch.setattr(calls_module, "LOST", 0.05)
    made = []

    def make_signalling():
        made.append(FakeSignalling())
        return made[-1]

    with TestClient(fake_app(make_signalling=make_signalling, max_calls=10), base_url="http://localhost") as client:
        for _ in range(10):
            begin(client)
        client.portal.call(client.app.state.calls._look_after)
        for signalling in made:
            signalling.connection.connected = False
        wait_until(lambda: not client.app.state.calls.active)
        assert all(signalling.connection.closed for signalling in made)
        assert not client.app.state.calls.metrics._seen


def test_two_calls_have_nothing_in_common():
    seen = []

    async def note(connection, call):
        seen.append((connection, call))
        await asyncio.Event().wait()

    with TestClient(fake_app(note, max_calls=2), base_url="http://localhost") as client:
        first, second = begin(client)[0], begin(client)[0]
        (one, one_call), (two, two_call) = seen
        assert one is not two and one_call.counts is not two_call.counts and one_call.chunks is not two_call.chunks
        client.post(f"{first}/end")
        assert one.closed and not two.closed
        assert client.post(f"{second}/report", json={}).status_code == 200
