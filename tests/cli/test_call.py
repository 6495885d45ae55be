import json
import socket
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pipecat", reason="needs the [call] extra")
pytest.importorskip("uvicorn", reason="needs the [call] extra")

from fastapi.testclient import TestClient

from talkingmachines.cli import call as call_module
from talkingmachines.cli.main import main
from talkingmachines.presets import pocket
from talkingmachines.server import serve as serve_module


@pytest.fixture(name="served")
def _served(monkeypatch):
    """The application that would be served, with an avatar that is never used."""
    served = {}

    def serve(app, listener, ready):
        served["app"] = app
        ready()

    def load(*, begin, **options):
        served["loaded"] = options
        begin()
        shape, spec = options["shape"] or (64, 64), replace(pocket(), finds_face=options["name_or_path"] == "weights")
        parts = {"chunk_frames": 12, "window": 4, "check_box": spec.check_box, "needed": nullcontext, "fit": None}
        return SimpleNamespace(shape=shape, steps=options["steps"] or 1, close=lambda: None, **parts)

    monkeypatch.setattr(serve_module, "serve", serve)
    monkeypatch.setattr("talkingmachines.apart.ApartAvatar", load)
    monkeypatch.setattr("talkingmachines.server.capacity.calls_that_fit", lambda *_: (1, 0.5))
    monkeypatch.setattr(call_module, "_prepare", lambda options: None)
    for name in ("OPENAI_API_KEY", "GOOGLE_API_KEY", call_module.LLM_KEY, call_module.ICE_SERVERS):
        monkeypatch.delenv(name, raising=False)
    return served


def test_one_link(capsys, served):
    assert main(["call", "--port", "0", "--max-calls", "2", "--voice", "echo"]) == 0
    out = capsys.readouterr().out
    assert out.strip().startswith("http://localhost:") and "token" not in out
    with TestClient(served["app"], base_url="http://localhost") as client:
        config = client.get("/api/config").json()
    assert config["voice"] == "echo" and config["name"] == "Nova" and config["recorded"] is False
    assert config["aspect"] == 1
    assert served["app"].state.calls.max_calls == 2


def test_off_loopback_the_link_has_a_token(capsys, served):
    assert main(["call", "--port", "0", "--max-calls", "1", "--host", "0.0.0.0", "--persona", "rook"]) == 0
    assert "#token=" in capsys.readouterr().out


def test_as_many_calls_as_fit(capsys, served, monkeypatch):
    monkeypatch.setattr("talkingmachines.server.capacity.calls_that_fit", lambda *_: (3, 0.1))
    assert main(["call", "--port", "0", "--voice", "echo"]) == 0
    assert served["app"].state.calls.max_calls == 3
    assert "3 calls at the same time" in " ".join(capsys.readouterr().err.split())


def test_steps_and_calls_as_given(served, monkeypatch):
    measured = "talkingmachines.server.capacity.calls_that_fit"
    monkeypatch.setattr(measured, lambda *_: pytest.fail("measured for nothing"))
    assert main(["call", "--port", "0", "--voice", "echo", "--steps", "2", "--max-calls", "5"]) == 0
    assert served["loaded"]["steps"] == 2 and served["app"].state.calls.max_calls == 5


@pytest.mark.parametrize(
    ("options", "key"), [(["--llm-url", "http://localhost:1/v1", "--llm-model", "m"], "k"), ([], None)]
)
def test_a_language_model_of_ones_own_may_want_a_key(served, monkeypatch, options, key):
    monkeypatch.setenv("LLM_API_KEY", "k")
    asked = []
    monkeypatch.setattr(call_module, "_prepare", asked.append)
    assert main(["call", "--port", "0", "--max-calls", "1", *options]) == 0
    assert asked[0].key == key


def test_a_log_of_json_lines_has_nothing_else(capsys, served, monkeypatch):
    monkeypatch.setattr("talkingmachines.server.capacity.calls_that_fit", lambda *_: (1, 1.2))
    assert main(["call", "--port", "0", "--voice", "echo", "--log-json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert any("which will stutter" in line["message"] and line["level"] == "warning" for line in lines)


def test_a_picture_that_is_offered_first(served, tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "me.png")
    assert main(["call", "--port", "0", "--max-calls", "1", "--image", str(tmp_path / "me.png")]) == 0
    with TestClient(served["app"], base_url="http://localhost") as client:
        first = client.get("/api/config").json()["characters"][0]
        assert client.get(first["src"]).status_code == 200


def test_every_option_reaches_the_avatar_and_its_calls(served, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "talkingmachines.server.live.live_call", lambda avatar, frames, talk, box: calls.append((frames, box))
    )
    options = ["--preset", "weights", "--size", "448x576", "--encoders", "a/b", "--speech-encoder", "c", "--fp8"]
    options += ["--prompt", "a man talks", "--tiny-decoder", "taew2_1.pth", "--compile", "--device", "cuda:1"]
    options += ["--vae-device", "cuda:2", "--steps", "4"]
    assert main(["call", "--port", "0", "--max-calls", "1", "--face-box", "0,0.25,0.5,1", *options]) == 0
    loaded = {
        "name_or_path": "weights",
        "device": "cuda:1",
        "shape": (576, 448),
        "encoders": "a/b",
        "speech_encoder": "c",
    }
    loaded |= {
        "prompt": "a man talks",
        "tiny_decoder": "taew2_1.pth",
        "vae_device": "cuda:2",
        "steps": 4,
        "fp8": True,
        "compile": True,
    }
    assert served["loaded"] == loaded
    assert calls == [(12, (0, 0.25, 0.5, 1))]
    with TestClient(served["app"], base_url="http://localhost") as client:
        assert client.get("/api/config").json()["aspect"] == 448 / 576


def test_turn_servers_come_from_the_environment(served, monkeypatch):
    server = {"urls": "turn:turn.example.org", "username": "a", "credential": "b"}
    monkeypatch.setenv(call_module.ICE_SERVERS, json.dumps([server]))
    assert main(["call", "--port", "0", "--max-calls", "1"]) == 0
    with TestClient(served["app"], base_url="http://localhost") as client:
        assert client.get("/api/config").json()["iceServers"] == [server]


@pytest.mark.parametrize(
    ("argv", "environment", "words"),
    [
        (["--voice", "openai-realtime"], {}, "OPENAI_API_KEY"),
        (["--voice", "gemini-live"], {}, "GOOGLE_API_KEY"),
        (["--voice", "nobody"], {}, "--voice"),
        (["--persona", "nobody"], {}, "nobody"),
        (["--image", "nowhere.png"], {}, "nowhere.png"),
        (["--llm-model", "llama"], {}, "--llm-url"),
        (["--record", "/dev/null/calls"], {}, "the folder cannot be made"),
        (["--max-calls", "0"], {}, "--max-calls"),
        (["--public-url", "example.org"], {}, "--public-url"),
        (["--size", "large"], {}, "--size"),
        (["--face-box", "0,0,2,1"], {}, "face box"),
        ([], {"TALKINGMACHINES_ICE_SERVERS": "turn:x"}, "TALKINGMACHINES_ICE_SERVERS"),
        ([], {"TALKINGMACHINES_ICE_SERVERS": "[3]"}, "ICE server"),
    ],
)
def test_what_a_user_can_mend_is_one_line(capsys, served, monkeypatch, argv, environment, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["call", "--port", "0", *argv]) == 2
    assert words in capsys.readouterr().err and not served


def test_nothing_else_is_said():
    """Libraries that are read for a call greet whoever reads them."""
    program = "import sys; from talkingmachines.cli.main import main; sys.exit(main(['call', '--persona', 'nobody']))"
    ran = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2 and not ran.stdout
    (line,) = ran.stderr.splitlines()
    assert line.startswith("talkingmachines: error: no persona 'nobody'")


def test_a_face_box_that_the_preset_has_not_learned_with(capsys, served):
    assert main(["call", "--port", "0", "--max-calls", "1", "--face-box", "0,0.25,0.5,1"]) == 2
    assert "leave the face box out" in capsys.readouterr().err and "app" not in served


def test_a_port_that_is_taken(capsys, served):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert main(["call", "--port", str(other.getsockname()[1])]) == 2
    assert "--port" in capsys.readouterr().err
