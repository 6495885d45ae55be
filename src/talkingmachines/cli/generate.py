"""`generate` and `demo`: a picture and a recording go in, a talking clip comes out."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from talkingmachines.cli.avatar_options import (
    AvatarOptions,
    DeviceOption,
    FaceBoxOption,
    PresetOption,
    SizeOption,
    StepsOption,
    read_face_box,
    takes_avatar_options,
)
from talkingmachines.cli.console import log_shown, make_folder, print_json, progress_bar
from talkingmachines.errors import ConfigError, MediaError
from talkingmachines.types import FPS

if TYPE_CHECKING:
    import numpy as np

    from talkingmachines.media.face import Box

SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Same seed, same machine: the same video.")]
TeacherOption = Annotated[bool, typer.Option("--teacher", help="Use the teacher, which is many times slower.")]
GuidanceOption = Annotated[float | None, typer.Option(help="How strictly the teacher's lips follow the audio.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@takes_avatar_options
def generate(
    *,
    options: AvatarOptions,
    image: Annotated[Path, typer.Option(help="Picture of the character: PNG, JPEG, WebP, ...")],
    audio: Annotated[Path, typer.Option(help="Recording of the speech: WAV, MP3, FLAC, OGG, M4A, MP4, ...")],
    out: Annotated[Path, typer.Option(help="The video to write, .mp4.")],
    face_box: FaceBoxOption = None,
    seed: SeedOption = 0,
    teacher: TeacherOption = False,
    guidance: GuidanceOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Make the character of a picture speak a recording."""
    maker = Maker(options, teacher, guidance, device, read_face_box(face_box))
    make_clip(image, audio, out, maker, seed=seed, as_json=json)


def demo(
    *,
    out: Annotated[Path, typer.Option(help="The video to write, .mp4; its folder is made if need be.")],
    preset: PresetOption = "pocket",
    size: SizeOption = None,
    seed: SeedOption = 0,
    teacher: TeacherOption = False,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Make the shipped character speak a shipped recording."""
    assets = files("talkingmachines") / "assets"
    recordings = assets / "recordings"
    names = sorted(item.name for item in recordings.iterdir()) if recordings.is_dir() else []
    names = [name for name in names if Path(name).suffix in SOUND_SUFFIXES]
    if not names or not (assets / "demo.png").is_file():
        raise ConfigError("this installation lacks the demo's picture or recording; install talkingmachines again")
    make_folder(out.parent)
    with as_file(assets / "demo.png") as image, as_file(recordings / names[0]) as audio:
        maker = Maker(AvatarOptions(preset=preset, size=size, steps=steps), teacher, guidance, device)
        make_clip(image, audio, out, maker, seed=seed, as_json=json)


SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")
"""Of the shipped recordings; other files beside them say where they come from."""


@dataclass(frozen=True)
class Maker:
    """What makes the clip. options: all but preset and steps are the student's alone; guidance: the teacher's alone,
    its preset's unless given. face_box: see Avatar.session.

    Raises ConfigError for settings that cannot work.
    """

    options: AvatarOptions
    teacher: bool
    guidance: float | None
    device: str = "auto"
    face_box: "Box | None" = None

    def __post_init__(self) -> None:
        foreign = [name for name in self.options.given if name != "--steps"]
        if self.teacher and foreign:
            raise ConfigError(f"the teacher has no {', '.join(foreign)}; leave them out, or --teacher")
        if not self.teacher and self.guidance is not None:
            raise ConfigError("--guidance is a setting of the teacher; add --teacher, or leave it out")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ConfigError(f"--guidance must be a number of at least 0, got {self.guidance}")

    def load(self) -> "tuple[tuple[int, int], Callable[..., Iterator[np.ndarray]]]":
        """Height and width of the video, and what takes a picture, speech, `seed` and `progress` and makes the clip."""
        if self.teacher:
            from talkingmachines.teacher import load_teacher

            teacher = load_teacher(self.options.preset, device=self.device)
            make = partial(
                teacher.stream_generate, steps=self.options.steps, guidance=self.guidance, face_box=self.face_box
            )
            return (teacher.size, teacher.size), make
        student = self.options.load(self.device)
        return student.shape, partial(student.stream_generate, face_box=self.face_box)


def make_clip(image: Path, audio: Path, out: Path, maker: Maker, *, seed: int, as_json: bool) -> None:
    """Checks all inputs and the output before the models load, makes the clip and says how long it took."""
    from talkingmachines import media

    media.check_output(out)
    for given in (image, audio):
        if out.exists() and given.exists() and out.samefile(given):
            raise MediaError(f"{out}: writing there would destroy an input; choose another --out")
    picture, speech = media.read_image(image), media.read_audio(audio)

    with log_shown(), Console(stderr=True).status(f"loading {maker.options.preset}"):
        shape, make = maker.load()
    started, frames = time.perf_counter(), 0
    with log_shown(), progress_bar("generating") as update:
        blocks = make(picture, speech, seed=seed, progress=update)
        frames = media.write_video(out, (frame for block in blocks for frame in block), FPS, speech, media.AI_METADATA)
    took = time.perf_counter() - started
    result = {
        "path": str(out),
        "seconds": frames / FPS,
        "frames": frames,
        "fps": FPS,
        "size": "{1}x{0}".format(*shape),
        "preset": maker.options.preset,
        "model": "teacher" if maker.teacher else "student",
        "seed": seed,
        "took_seconds": round(took, 3),
        "speed": round(frames / FPS / took, 3),
    }
    if as_json:
        print_json(result)
    else:
        print(f"{out}: {frames / FPS:.1f} s of video in {took:.1f} s, {result['speed']:.2f} times real time")
