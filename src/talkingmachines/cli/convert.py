"""`convert`: published weights of Wan2.1 into weights of ours."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from talkingmachines.cli.console import progress_bar


class Role(StrEnum):
    """What the model is to be. A model that has learned few steps and to look only back is a student."""

    TEACHER = "teacher"
    STUDENT = "student"


def convert(
    *,
    wan: Annotated[Path, typer.Option(help="Folder with Wan2.1 weights, as downloaded: Wan's own or diffusers'.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    audio: Annotated[Path | None, typer.Option(help="File of MultiTalk or InfiniteTalk audio layers.")] = None,
    lora: Annotated[Path | None, typer.Option(help="File of a LoRA to merge in.")] = None,
    role: Annotated[Role, typer.Option("--as", help="What the model is to be.")] = Role.TEACHER,
    from_text: Annotated[
        bool, typer.Option("--from-text", help="Take text-to-video weights; the layers for the picture are new.")
    ] = False,
) -> None:
    """Convert Wan2.1 weights, with their audio layers and a LoRA if given, into a folder that loads here.

    The preset is recognised from the weights. A conversion that was stopped goes on when the command is given again.
    """
    from talkingmachines.checkpoints.convert import convert as write
    from talkingmachines.checkpoints.plan import make_plan

    plan = make_plan(wan, audio, lora, from_text=from_text)
    # Before it begins, which may take long: what lacks here is to be got first.
    for layers in plan.new_layers:
        print(f"no {layers} layers were given: new ones, which change nothing until they are trained")
    if plan.vae is None:
        print(f"no autoencoder in {wan}, so none is converted, and without one nothing runs: get its folder vae too")
    with progress_bar("converting") as update:
        write(plan, role.value, out, update)
    print(f"weights: {out} ({role.value} of preset {plan.preset.name}, {plan.nbytes / 1e9:.1f} GB)")
