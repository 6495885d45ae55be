"""`data`: looking at the synthetic training data."""

from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from talkingmachines.cli.console import make_folder, progress_bar
from talkingmachines.types import FPS

SHEET_CHARACTERS, SHEET_SIZE = 64, 128
CLIP_SECONDS, CLIP_UTTERANCES = 8, 8

app = typer.Typer(help="Look at the synthetic training data.")


@app.callback()
def data() -> None:
    """Look at the synthetic training data."""


@app.command()
def preview(
    out: Annotated[Path, typer.Option(help="Folder for the pictures; made if need be.")],
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Another seed: other characters.")] = 0,
) -> None:
    """Write a contact sheet of characters and a sample clip with sound."""
    from talkingmachines.data.synthetic.bank import SpeechBank
    from talkingmachines.data.synthetic.clip import HELDOUT_CHARACTERS, make_clip
    from talkingmachines.data.synthetic.looks import draw_clip, sample_look
    from talkingmachines.data.synthetic.preview import contact_sheet
    from talkingmachines.media import write_image, write_video

    make_folder(out)
    sheet, video = out / "characters.png", out / "clip.mp4"
    first = HELDOUT_CHARACTERS + seed
    write_image(sheet, contact_sheet(range(first, first + SHEET_CHARACTERS), SHEET_SIZE))
    with progress_bar("speaking") as update:
        bank = SpeechBank.build("train", CLIP_UTTERANCES, seed, update)
    clips = (make_clip(number, "train", CLIP_SECONDS * FPS, bank) for number in count(seed))
    clip = next(clip for clip in clips if clip.speaking.mean() > 0.5)
    frames = draw_clip(sample_look(clip.character_seed), clip.track)
    write_video(video, frames, FPS, clip.samples, {"comment": "Drawn by TalkingMachines, with a synthetic voice"})
    print(f"{sheet}: {SHEET_CHARACTERS} characters\n{video}: {CLIP_SECONDS} s of a training clip")
