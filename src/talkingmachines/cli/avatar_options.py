"""Which avatar, and how: the options that commands share."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Signature, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from talkingmachines.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from talkingmachines.apart import ApartAvatar
    from talkingmachines.avatar import Avatar
    from talkingmachines.media.face import Box

PresetOption = Annotated[str, typer.Option(help="A preset's name, or a folder with weights.")]
FaceBoxOption = Annotated[
    str | None,
    typer.Option(
        "--face-box",
        metavar="X0,Y0,X1,Y1",
        help="Where the face is, in fractions of the video, for the large presets; looked for unless given.",
    ),
]

SizeOption = Annotated[
    str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Of the video, in pixels; the preset's unless given.")
]

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]

StepsOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, help="Of denoising: more are slower. Unless given, the preset's; 1 in calls on a processor."
    ),
]


@dataclass(frozen=True, kw_only=True)
class AvatarOptions:
    """What an avatar is loaded from: a field is an option of the commands. See avatar.load.

    Raises ConfigError for a size that is none.
    """

    preset: PresetOption = "pocket"
    size: SizeOption = None
    encoders: Annotated[
        str | None,
        typer.Option(help="Folder, or name on the hub, with encoders of text and pictures, for the large presets."),
    ] = None
    speech_encoder: Annotated[
        str | None, typer.Option(help="Folder, or name on the hub, with wav2vec2, for the large presets.")
    ] = None
    prompt: Annotated[str | None, typer.Option(help="What the large presets are told of the video.")] = None
    tiny_decoder: Annotated[
        str | None, typer.Option(help="A file of taew2_1, instead of Wan's decoder: faster, less exact.")
    ] = None
    vae_device: Annotated[
        str | None, typer.Option(help="cuda:1, ...: where to decode; beside the transformer unless given.")
    ] = None
    steps: StepsOption = None
    fp8: Annotated[bool, typer.Option("--fp8", help="Linear layers in eight bits, on GPUs that can.")] = False
    compile: Annotated[bool, typer.Option("--compile", help="Fuse the models first: minutes, then faster.")] = False

    def __post_init__(self) -> None:
        _ = self.shape

    @property
    def shape(self) -> tuple[int, int] | None:
        """(height, width) of the video; None: the preset's."""
        if self.size is None:
            return None
        width, _, height = self.size.partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise ConfigError(f"--size is WIDTHxHEIGHT, such as 512x512, got {self.size!r}")
        return int(height), int(width)

    @property
    def given(self) -> list[str]:
        """The options that are not as they are by themselves, but for --preset, as a user writes them."""
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return [f"--{name.replace('_', '-')}" for name in changed if name != "preset"]

    def load(self, device: str = "auto", dtype: "torch.dtype | None" = None) -> "Avatar":
        """Raises as avatar.load."""
        from talkingmachines import avatar

        options = self._of_load(device)
        return avatar.load(options.pop("name_or_path"), dtype=dtype, **options)

    def load_apart(self, device: str, begin: Callable[[], None]) -> "ApartAvatar":
        """For calls: in a process of its own, see there. Raises as avatar.load."""
        from talkingmachines.apart import ApartAvatar

        return ApartAvatar(begin=begin, **self._of_load(device))

    def _of_load(self, device: str) -> dict[str, Any]:
        return {
            "name_or_path": self.preset,
            "device": device,
            "shape": self.shape,
            "encoders": self.encoders,
            "speech_encoder": self.speech_encoder,
            "prompt": self.prompt,
            "tiny_decoder": self.tiny_decoder,
            "vae_device": self.vae_device,
            "steps": self.steps,
            "fp8": self.fp8,
            "compile": self.compile,
        }


def takes_avatar_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command as the parser sees it: the options of AvatarOptions in place of its parameter `options`."""
    shared = signature(AvatarOptions).parameters
    own = [parameter for name, parameter in signature(command).parameters.items() if name != "options"]

    @wraps(command)
    def run(**given: Any) -> None:
        options = AvatarOptions(**{name: given.pop(name) for name in shared})
        command(options=options, **given)

    run.__signature__ = Signature([*own, *shared.values()])  # type: ignore[attr-defined]  # what typer looks at
    return run


def read_face_box(text: str | None) -> "Box | None":
    """Of --face-box. Raises ConfigError for a box that is none."""
    from talkingmachines.media.face import check_box

    if text is None:
        return None
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--face-box is x0,y0,x1,y1, such as 0.3,0.1,0.7,0.6, got {text!r}") from None
    return check_box((x0, y0, x1, y1))
