"""`bench` on the tiny preset: what it says, not how fast the machine is."""

import json

import numpy as np
import pytest
import torch
from random_weights import save_features

from talkingmachines.avatar import Avatar
from talkingmachines.cli.main import main
from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, TextConfig
from talkingmachines.dit.model import DiT
from talkingmachines.evaluation import bench as bench_module
from talkingmachines.evaluation.bench import growth
from talkingmachines.evaluation.random_avatar import random_features
from talkingmachines.flow.chunk import ChunkConfig
from talkingmachines.presets import PRESETS, Preset, tiny
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.wan_config import WanVAEConfig
from talkingmachines.weights import save_weights

STAGES = ["audio", "dit_step_1", "dit_step_2", "decode", "transfer"]


def figures(capsys, *more):
    assert main(["bench", "--preset", "tiny", "--random-weights", "--seconds", "2", "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("sessions", [1, 3])
def test_figures(capsys, sessions):
    found = figures(capsys, "--sessions", str(sessions))
    assert (found["preset"], found["size"], found["steps"]) == ("tiny", "64x64", 2)
    assert (found["device"], found["sessions"]) == ("cpu", sessions)
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
    assert set(found["growth"]) == {"chunk_time", "memory", "part_seconds", "old_over_new"}
    assert found["growth"]["memory"] == pytest.approx(1, abs=0.2)
    assert found["growth"]["old_over_new"] > 0
    machine = found["machine"]
    assert machine["cpu"] and machine["cores"] >= 1 and machine["torch"] == torch.__version__
    assert machine["threads"] == torch.get_num_threads()


def test_arithmetic(capsys):
    found = figures(capsys)
    arithmetic = found["arithmetic"]
    assert arithmetic["pass_tflop"]["linear"] > arithmetic["pass_tflop"]["attention"] > 0
    assert set(arithmetic["tflops"]) == set(arithmetic["share_of_peak"]) == {"dit_step_1", "dit_step_2"}
    assert 0 < arithmetic["tflops"]["dit_step_1"] < arithmetic["peak_tflops"]
    floor = arithmetic["floor"]
    assert 0 < floor["chunk_ms"] < found["stage_ms"]["dit_step_1"] + found["stage_ms"]["dit_step_2"]
    assert floor["fps"] == pytest.approx(8 / floor["chunk_ms"] * 1000, rel=0.5)
    assert found["attention"] in ("sdpa", "products")


def test_a_preset_of_wans_kind_in_another_shape(capsys, monkeypatch):
    """Built where it runs, with random weights, tokens and speech encoder."""
    pytest.importorskip("transformers")
    monkeypatch.setitem(PRESETS, "tiny", tiny_wan)
    found = figures(capsys, "--size", "48x32", "--seconds", "1", "--steps", "1")
    assert (found["size"], found["steps"]) == ("48x32", 1)
    assert list(found["stage_ms"]) == [stage for stage in STAGES if stage != "dit_step_2"]


def tiny_wan():
    audio = AudioConfig(16, 2, window=5, hidden=16, context_tokens=2, width=16)
    told = {"text": TextConfig(10, 5), "image": ImageConfig(14, 4), "audio": audio}
    dit = DiTConfig(width=32, ffn_width=64, heads=2, layers=2, reference="once", **told)
    vae = WanVAEConfig(dim=8, num_res_blocks=1)
    return Preset("tiny", 32, dit, vae, chunk=ChunkConfig(frames=1, window=3))


def test_float32_is_asked_for(capsys):
    assert figures(capsys, "--dtype", "float32")["dtype"] == "float32"


def test_for_the_eye(capsys):
    assert main(["bench", "--preset", "tiny", "--random-weights", "--seconds", "1"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "frames per second",
        "times real time",
        "dit step 2",
        "p99",
        "growth",
        "warm up",
        "random weights",
        "of the peak",
        "floor",
    ):
        assert words in shown
    assert any("dit step 2" in line and " ms, " in line and "TFLOP/s" in line for line in shown.splitlines())


def test_weights_of_a_folder(tmp_path, capsys):
    spec = tiny()
    for name, model in (("vae", CausalVAE(spec.vae)), ("student", DiT(spec.dit))):
        save_weights(tmp_path, name, model, {"preset": "tiny"})
    save_features(tmp_path)
    assert main(["bench", "--preset", str(tmp_path), "--seconds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["preset"], found["weights"]) == ("tiny", "trained")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "nan"], "seconds"),
        (["--seconds", "inf"], "seconds"),
        (["--sessions", "0"], "--sessions"),
        (["--dtype", "float16"], "--dtype"),
        (["--preset", "nonsense", "--random-weights"], "nonsense"),
        (["--preset", "nonsense"], "nonsense"),
        (["--preset", "tiny", "--random-weights", "--device", "nonsense"], "nonsense"),
        (["--preset", "tiny", "--random-weights", "--device", "cpu", "--fp8"], "fp8 needs a GPU"),
        (["--preset", "tiny", "--random-weights", "--size", "500x512"], "multiples of 32"),
        (["--preset", "tiny", "--random-weights", "--size", "large"], "--size"),
        (["--preset", "tiny", "--random-weights", "--tiny-decoder", "random"], "tiny decoder"),
        (["--preset", "tiny", "--random-weights", "--tiny-decoder", "a.pth"], "--tiny-decoder"),
        (["--preset", "tiny", "--random-weights", "--fp8", "--dtype", "float32"], "--fp8"),
        (
            ["--preset", "tiny", "--random-weights", "--encoders", "a", "--prompt", "b"],
            "leave out --encoders and --prompt",
        ),
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


def calls_of(sessions):
    torch.manual_seed(0)
    spec = tiny()
    avatar = Avatar(spec, CausalVAE(spec.vae), DiT(spec.dit), torch.device("cpu"), features=random_features(spec))
    return bench_module._Calls(avatar, np.zeros((64, 64, 3), np.uint8), sessions)


def test_old_calls_and_new_ones_take_turns(monkeypatch):
    """On a machine whose clock is ours and that becomes slower with every chunk: old calls take half as long again."""
    calls, now, made = calls_of(1), [0.0], []
    old = calls.open()

    def make(opened, coming, watch):
        assert all(call.audio.ready for call in opened)
        made.append(opened is old)
        now[0] += (3 if opened is old else 2) * (1 + (len(made) - 1) // 2)

    monkeypatch.setattr(calls, "make", make)
    monkeypatch.setattr(bench_module.time, "perf_counter", lambda: now[0])
    assert bench_module._age(calls, old, 40) == {"old_over_new": 1.5}
    assert made == [True, False] * (calls.warmup + 5)


def test_every_session_hears_speech_of_its_own():
    calls = calls_of(2)
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
