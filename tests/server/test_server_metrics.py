import re

import pytest
from fastapi.testclient import TestClient
from server_fakes import CHARACTER, OFFER, fake_app

from talkingmachines.conversation.counts import CallCounts
from talkingmachines.server.calls import Call
from talkingmachines.server.metrics import Metrics, percentile

LINE = re.compile(r'^[a-z0-9_]+(\{[a-z]+="[^"]*"\})? (-?[0-9.e+-]+|\+Inf|NaN)$')


def a_call():
    return Call("a", None, None, CallCounts())


def value(metrics, line):
    found = [row for row in metrics.text().decode().splitlines() if row.startswith(f"talkingmachines_{line} ")]
    assert len(found) == 1, line
    return float(found[0].split()[-1])


def test_the_text_format():
    with TestClient(fake_app(), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        client.post(f"{path}/offer", json=OFFER)
        client.portal.call(client.app.state.calls._look_after)
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert "talkingmachines_calls 1.0" in lines and "talkingmachines_calls_started_total 1.0" in lines
    rows = [line for line in lines if not line.startswith("#") and "_bucket" not in line]
    assert not [row for row in rows if not LINE.match(row)]
    wanted = (
        "calls fps chunk_p95_seconds first_frame_seconds turn_seconds av_offset_seconds frames_lost_total errors_total"
    )
    for name in wanted.split():
        assert any(line.startswith(f"talkingmachines_{name}") for line in lines), name


def test_only_growth_is_added():
    metrics, call = Metrics(2), a_call()
    call.counts.frames, call.counts.turns, call.counts.first_frame = 10, 1, 0.7
    call.counts.turn_times.append(1.1)
    metrics.observe(call)
    call.counts.frames, call.counts.turns, call.counts.dropped = 35, 3, 4
    call.counts.turn_times.extend([0.9, 1.0])
    call.chunks.add(0.3)
    metrics.observe(call)
    metrics.observe(call)
    assert value(metrics, "frames_total") == 35
    assert value(metrics, 'frames_lost_total{how="dropped"}') == 4
    assert value(metrics, "turn_seconds_count") == 3 and value(metrics, "turn_seconds_sum") == pytest.approx(3.0)
    assert value(metrics, "first_frame_seconds_count") == 1
    assert value(metrics, "chunk_seconds_count") == 1 and value(metrics, "chunk_p95_seconds") == 0.3
    metrics.forget(call)
    assert value(metrics, "chunk_p95_seconds") == 0


def test_reports_that_cannot_be_true_are_left_out():
    metrics, call = Metrics(1), a_call()
    call.counts.frames = 1
    metrics.report(call, {"fps": "25", "av_offset": float("nan"), "dropped": -1, "more": {}})
    metrics.report(call, {"fps": float("inf"), "av_offset": 1e9, "dropped": 10**400})
    assert value(metrics, "received_fps") == 0 and value(metrics, "received_av_offset_seconds_count") == 0
    metrics.report(call, {"fps": 24.5, "av_offset": 0.01, "dropped": 3})
    metrics.report(call, {"dropped": 5})
    assert value(metrics, "received_fps") == 24.5 and value(metrics, "received_frames_dropped_total") == 5


def test_figures_for_the_panel():
    metrics, call = Metrics(1), a_call()
    assert metrics.of_call(call)["chunk"] is None
    for spent in (0.2, 0.3, 0.4):
        call.chunks.add(spent)
    assert metrics.of_call(call)["chunk"] == pytest.approx(0.3)
    assert percentile([], 50) is None
