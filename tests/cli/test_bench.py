"""`bench` on the tiny preset: what it says, not how fast the machine is."""

import json

import numpy as np
import pytest
import torch

from talkingmachines.avatar import Avatar
from talkingmachines.cli.main import main
from talkingmachines.dit.model import DiT
from talkingmachines.evaluation import bench as bench_module
from talkingmachines.evaluation.bench import growth
from talkingmachines.presets import tiny
from talkingmachines.vae.model import CausalVAE
from talkingmachines.weights import save_weights

STAGES = ["audio", "dit_step_1", "dit_step_2", "decode", "transfer"]


def figures(capsys, *more):
    assert main(["bench", "--preset", "tiny", "--random-weights", "--seconds", "2", "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("sessions", [1, 3])
def test_figures(capsys, sessions):
    found = figures(capsys, "--sessions", str(sessions))
    assert (found["preset"], found["size"], found["device"], found["sessions"]) == ("tiny", 64, "cpu", sessions)
    assert found["dtype"] in ("bfloat16", "float32")
    assert found["weights"] == "random"
    # Chunks of 8 frames: 2 s are 6 of them.
    assert (found["seconds"], found["warmup_chunks"]) == (1.92, 5)
    assert found["real_time_factor"] == pytest.approx(found["fps"] / 25 / sessions, abs=1e-3)
    assert found["first_frame_s"] > 0
    chunk = found["chunk_ms"]
    assert 0 < chunk["p50"] <= chunk["p95"] <= chunk["p99"]
    assert list(found["stage_ms"]) == STAGES
    assert all(spent > 0 for spent in found["stage_ms"].values())
    assert found["peak_memory_mb"] > 50
    assert set(found["growth"]) == {"chunk_time", "memory", "part_seconds"}
    assert found["growth"]["memory"] == pytest.approx(1, abs=0.2)
    machine = found["machine"]
    assert machine["cpu"] and machine["cores"] >= 1 and machine["torch"] == torch.__version__
    assert machine["threads"] == torch.get_num_threads()


def test_float32_is_asked_for(capsys):
    assert figures(capsys, "--dtype", "float32")["dtype"] == "float32"


def test_for_the_eye(capsys):
    assert main(["bench", "--preset", "tiny", "--random-weights", "--seconds", "1"]) == 0
    shown = capsys.readouterr().out
    for words in ("frames per second", "times real time", "dit step 2", "p99", "growth", "warm up", "random weights"):
        assert words in shown


def test_weights_of_a_folder(tmp_path, capsys):
    spec = tiny()
    for name, model in (("vae", CausalVAE(spec.vae)), ("student", DiT(spec.dit))):
        save_weights(tmp_path, name, model, {"preset": "tiny"})
    assert main(["bench", "--preset", str(tmp_path), "--seconds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["preset"], found["weights"]) == ("tiny", "trained")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seconds", "0"], "--seconds"),
        (["--sessions", "0"], "--sessions"),
        (["--dtype", "float16"], "--dtype"),
        (["--preset", "nonsense", "--random-weights"], "nonsense"),
        (["--preset", "nonsense"], "nonsense"),
        (["--preset", "tiny", "--random-weights", "--device", "nonsense"], "nonsense"),
    ],
)
def test_bad_settings(capsys, argv, words):
    assert main(["bench", *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error


def test_growth_compares_the_last_minute_with_the_first():
    chunk_s = np.concatenate([np.full(125, 0.30), np.full(3500, 9.0), np.full(125, 0.33)])
    grown = growth(chunk_s, np.linspace(100, 102, 3750), 0.48)
    assert grown["chunk_time"] == pytest.approx(1.1)
    assert 1.015 < grown["memory"] < 1.02
    assert grown["part_seconds"] == 60
    # Two seconds, of which the tenth is less than a chunk.
    assert growth(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), 0.48)["chunk_time"] == 4
    assert growth(np.array([1.0]), np.ones(1), 0.48)["chunk_time"] == 1


def test_every_session_hears_speech_of_its_own():
    torch.manual_seed(0)
    spec = tiny()
    avatar = Avatar(spec, CausalVAE(spec.vae), DiT(spec.dit), torch.device("cpu"))
    calls = bench_module._Calls(avatar.engine, np.zeros((64, 64, 3), np.uint8), 2)
    speech = bench_module.looped_speech()
    heard = [[], []]
    for _, pieces in zip(range(60), calls.pieces(), strict=False):
        for session, piece in enumerate(pieces):
            heard[session].append(piece)
    for session, pieces in enumerate(heard):
        assert [len(piece) for piece in pieces[:3]] == [5 * 640, 8 * 640, 8 * 640]
        whole = np.concatenate(pieces)
        start = session * len(speech) // 2
        np.testing.assert_array_equal(whole, np.take(speech, np.arange(start, start + len(whole)), mode="wrap"))
