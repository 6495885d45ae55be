"""`bench`: how fast a preset is on this machine."""

from enum import StrEnum
from importlib.resources import as_file, files
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from talkingmachines.cli.avatar_options import AvatarOptions, DeviceOption, takes_avatar_options
from talkingmachines.cli.console import print_json, progress_bar
from talkingmachines.errors import ConfigError


class Dtype(StrEnum):
    """What the models compute in."""

    auto = "auto"
    float32 = "float32"


@takes_avatar_options
def bench(
    *,
    options: AvatarOptions,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of video to make, of each session.")] = 30,
    sessions: Annotated[int, typer.Option(min=1, help="Calls made together, in one pass of the model.")] = 1,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="auto: bfloat16 where the machine is fast at it.")] = Dtype.auto,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Time a preset without its weights; --tiny-decoder is random then.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure how fast a preset is: frames per second, first frame, each chunk and stage, memory, growth."""
    import torch

    from talkingmachines.evaluation.bench import BenchConfig
    from talkingmachines.evaluation.bench import bench as measure
    from talkingmachines.evaluation.random_avatar import random_avatar
    from talkingmachines.media import read_image
    from talkingmachines.precision import choose_device

    config = BenchConfig(seconds, sessions)
    with as_file(files("talkingmachines") / "assets" / "demo.png") as path:
        image = read_image(path)
    chosen = torch.float32 if dtype is Dtype.float32 else None
    if options.fp8 and chosen:
        raise ConfigError("--fp8 and --dtype float32 exclude each other; give one of them")
    if random_weights:
        _check_random(options)
    result: dict[str, object] = {
        "weights": "random" if random_weights else "trained",
        "fp8": options.fp8,
        "compiled": options.compile,
        "tiny_decoder": options.tiny_decoder is not None,
        "vae_device": options.vae_device,
    }
    with Console(stderr=True).status(f"loading {options.preset}"):
        if random_weights:
            model, errors = random_avatar(
                options.preset,
                choose_device(device),
                chosen,
                shape=options.shape,
                tiny_decoder=options.tiny_decoder is not None,
                vae_device=options.vae_device,
                steps=options.steps,
                fp8=options.fp8,
                compile=options.compile,
            )
            result["fp8_error"] = errors and {"layer": round(errors.layer, 4), "velocity": round(errors.velocity, 4)}
        else:
            model = options.load(device, chosen)
    with progress_bar("timing chunks") as update:
        figures = measure(model, image, config, update)
    result = figures | result
    if json:
        print_json(result)
    else:
        _print_table(result)


def _check_random(options: AvatarOptions) -> None:
    """Raises ConfigError for options that say nothing to random weights."""
    if options.tiny_decoder not in (None, "random"):
        raise ConfigError(f"--tiny-decoder is 'random' with --random-weights, got {options.tiny_decoder!r}")
    if foreign := [name for name in options.given if name in ("--encoders", "--speech-encoder", "--prompt")]:
        raise ConfigError(f"with --random-weights the encoders are random too; leave out {' and '.join(foreign)}")


def _print_table(result: dict[str, Any]) -> None:
    on, chunk, growth, stages = (result[name] for name in ("machine", "chunk_ms", "growth", "stage_ms"))
    arithmetic, off = result["arithmetic"], result.get("fp8_error")
    on_another = f" and {result['vae_device']}" if result["vae_device"] else ""
    one_by_one = sum(stages.values())
    rows = {
        "preset": f"{result['preset']}, {result['size']}, {result['weights']} weights, steps {result['steps']}",
        "measured on": on.get("gpu") or f"{on['cpu']}, {on['cores']} cores, {on['threads']} threads",
        "computed in": f"{result['dtype']}{' and fp8' * result['fp8']} on {result['device']}{on_another}, "
        f"torch {on['torch']}{', compiled' * result['compiled']}, attention by {result['attention']}",
        **({"fp8 is off by": f"{off['layer']:.1%} in a layer at most, {off['velocity']:.1%} in a pass"} if off else {}),
        "sessions": f"{result['sessions']}, {result['seconds']} s each",
        "not counted": f"{result['warmup_chunks']} chunks before, to warm up",
        "speed": f"{result['fps']} frames per second, {result['real_time_factor']} times real time",
        "first frame": f"{result['first_frame_s']} s after its chunk's sound",
        "a chunk": f"{chunk['p50']} ms (p50), {chunk['p95']} (p95), {chunk['p99']} (p99)",
        **{f"  {name.replace('_', ' ')}": f"{spent} ms{_rate(arithmetic, name)}" for name, spent in stages.items()},
        "  one after the other": f"{one_by_one:.1f} ms",
        "peak": f"{arithmetic['peak_tflops']:.3g} TFLOP/s, measured",
        "floor": f"{arithmetic['floor']['chunk_ms']} ms a chunk, {arithmetic['floor']['fps']} frames per second, "
        "at that peak and without the autoencoder",
        "memory": f"{result['peak_memory_mb']} MB at most",
        "growth": f"chunk time {growth['chunk_time']}, memory {growth['memory']}: the last {growth['part_seconds']} s "
        "against the first"
        + (f"; chunk time {growth['old_over_new']} against a new call" if "old_over_new" in growth else ""),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


def _rate(arithmetic: dict[str, Any], stage: str) -> str:
    if stage not in arithmetic["tflops"]:
        return ""
    return f", {arithmetic['tflops'][stage]:.3g} TFLOP/s, {arithmetic['share_of_peak'][stage]:.0%} of the peak"
