"""`bench`: how fast a preset is on this machine."""

from enum import StrEnum
from importlib.resources import as_file, files
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from talkingmachines.cli.console import print_json, progress_bar


class Dtype(StrEnum):
    """What the models compute in."""

    auto = "auto"
    float32 = "float32"


def bench(
    *,
    preset: Annotated[str, typer.Option(help="A preset's name, or a folder with weights.")] = "pocket",
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of video to make, of each session.")] = 30,
    sessions: Annotated[int, typer.Option(min=1, help="Calls made together, in one pass of the model.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="auto: bfloat16 where the machine is fast at it.")] = Dtype.auto,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Time a preset without its weights.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure how fast a preset is: frames per second, first frame, each chunk and stage, memory, growth."""
    import torch

    from talkingmachines import avatar
    from talkingmachines.evaluation.bench import BenchConfig, random_avatar
    from talkingmachines.evaluation.bench import bench as measure
    from talkingmachines.media import read_image
    from talkingmachines.precision import choose_device

    config = BenchConfig(seconds, sessions)
    with as_file(files("talkingmachines") / "assets" / "demo.png") as path:
        image = read_image(path)
    chosen = torch.float32 if dtype is Dtype.float32 else None
    with Console(stderr=True).status(f"loading {preset}"):
        if random_weights:
            model = random_avatar(preset, choose_device(device), chosen)
        else:
            model = avatar.load(preset, device=device, dtype=chosen)
    with progress_bar("timing chunks") as update:
        figures = measure(model, image, config, update)
    result: dict[str, object] = {**figures, "weights": "random" if random_weights else "trained"}
    if json:
        print_json(result)
    else:
        _print_table(result)


def _print_table(result: dict[str, Any]) -> None:
    on, chunk, growth, stages = (result[name] for name in ("machine", "chunk_ms", "growth", "stage_ms"))
    one_by_one = sum(stages.values())
    rows = {
        "preset": f"{result['preset']}, {result['size']} x {result['size']}, {result['weights']} weights",
        "measured on": on.get("gpu") or f"{on['cpu']}, {on['cores']} cores, {on['threads']} threads",
        "computed in": f"{result['dtype']} on {result['device']}, torch {on['torch']}",
        "sessions": f"{result['sessions']}, {result['seconds']} s each",
        "not counted": f"{result['warmup_chunks']} chunks before, to warm up",
        "speed": f"{result['fps']} frames per second, {result['real_time_factor']} times real time",
        "first frame": f"{result['first_frame_s']} s after its chunk's sound",
        "a chunk": f"{chunk['p50']} ms (p50), {chunk['p95']} (p95), {chunk['p99']} (p99)",
        **{f"  {name.replace('_', ' ')}": f"{spent} ms" for name, spent in stages.items()},
        "  one after the other": f"{one_by_one:.1f} ms",
        "memory": f"{result['peak_memory_mb']} MB at most",
        "growth": f"chunk time {growth['chunk_time']}, memory {growth['memory']}: the last {growth['part_seconds']} s "
        "against the first",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)
