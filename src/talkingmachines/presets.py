"""Presets: all the numbers of a system, by name."""

from collections.abc import Callable
from dataclasses import dataclass, field

from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, RefinerConfig, TextConfig, WarpConfig
from talkingmachines.encoders.gestures import GesturesConfig
from talkingmachines.encoders.hearing import HearingConfig
from talkingmachines.errors import ConfigError
from talkingmachines.flow.chunk import ChunkConfig
from talkingmachines.framing.cut import FacePlaces
from talkingmachines.media.face import Box, check_box
from talkingmachines.vae.config import VAEConfig
from talkingmachines.vae.wan_config import WanVAEConfig


@dataclass(frozen=True)
class SamplingConfig:
    """How a teacher makes a clip.

    window: latent frames denoised together; history: how many of them are given by the window before.
    guidance: scale of the guidance on audio. face_box: where the face is unless said otherwise, x0, y0, x1, y1 in
    fractions of the picture.
    """

    steps: int = 8
    shift: float = 3.0
    guidance: float = 2.5
    window: int = 13
    history: int = 3
    face_box: Box = (0.15, 0.1, 0.85, 0.9)

    def __post_init__(self) -> None:
        if not 1 <= self.history < self.window:
            raise ConfigError(f"history must be at least 1 and under window, got {self.history} and {self.window}")


@dataclass(frozen=True)
class Preset:
    """size: height and width of the picture in pixels. sampling: of the teacher; chunk: of the student.

    finds_face: whether the face is looked for in each picture, where a detector is there. Otherwise sampling.face_box
    alone is where they listen: what a model has not learned with shows as a grid in the picture.
    faces: where eyes and mouth lie in all pictures that it has learned with; any other is cut so. None: anywhere.
    keeps_detail: whether what its autoencoder loses of the picture is put back where the video shows it.
    hearing, gestures: the models of its own that make the features of speech; both or none.
    """

    name: str
    size: int
    dit: DiTConfig
    vae: VAEConfig | WanVAEConfig = field(default_factory=VAEConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    finds_face: bool = False
    faces: FacePlaces | None = None
    keeps_detail: bool = False
    hearing: HearingConfig | None = None
    gestures: GesturesConfig | None = None

    def __post_init__(self) -> None:
        if self.dit.latent_channels != self.vae.latent_channels:
            raise ConfigError(
                f"the DiT has {self.dit.latent_channels} latent channels, the autoencoder {self.vae.latent_channels}"
            )
        if (self.hearing is None) != (self.gestures is None):
            raise ConfigError("a preset has hearing and gestures of its own, or neither")
        if self.hearing and self.gestures and self.dit.audio:
            made, wanted = self.hearing.dim + self.gestures.count, self.dit.audio.feature_dim
            if made != wanted or self.gestures.heard != self.hearing.dim:
                raise ConfigError(f"the DiT hears {wanted} channels; hearing and gestures make {made}")

    def check_box(self, given: Box) -> Box:
        """A face box that a user gives. Raises ConfigError if it is none, or not what the preset has learned with."""
        if check_box(given) != self.sampling.face_box and not self.finds_face:
            learned = ",".join(f"{value:g}" for value in self.sampling.face_box)
            raise ConfigError(f"{self.name} has learned with the face box {learned} alone; leave the face box out")
        return given


def pocket() -> Preset:
    """The one that ships: drawn characters, live on two CPU cores."""
    hearing, gestures = HearingConfig(), GesturesConfig(12, 192)
    audio = AudioConfig(hearing.dim + gestures.count, window=9, hidden=512, context_tokens=8, width=320)
    dit = DiTConfig(
        width=320,
        ffn_width=1280,
        heads=5,
        layers=8,
        latent_channels=32,
        patch=(1, 4, 4),
        audio=audio,
        refiner=RefinerConfig(layers=5, warp=WarpConfig()),
        previous=True,
        prediction="x0",
    )
    # The teacher's window is 13 latent frames, so a student's window of 4 chunks is as long as it has learned. The
    # second step, at sigma 0.2, mends what the first one made: speech and gestures leave little to begin anew.
    # Speech and gestures say nearly all, so guidance has little to add, and much of it is too much of everything.
    # Gestures move shoulders too, and it has learned to hear in the whole picture: where it does not, it draws a grid.
    # Its faces are where 400 drawn clips begin; with a mouth 4% of the picture higher or lower, lips hardly move.
    return Preset(
        "pocket",
        256,
        dit,
        sampling=SamplingConfig(guidance=1.25, face_box=(0.0, 0.0, 1.0, 1.0)),
        chunk=ChunkConfig(window=4, shift=0.25),
        faces=FacePlaces((0.404, 0.478), (0.596, 0.478), (0.5, 0.611), reach=(0.038, 0.024), scale=1.11),
        keeps_detail=True,
        hearing=hearing,
        gestures=gestures,
    )


def tiny() -> Preset:
    """For tests: the pocket's shape with hardly any weights."""
    hearing, gestures = HearingConfig(16, 1, 8), GesturesConfig(12, 8, 8, 2)
    audio = AudioConfig(hearing.dim + gestures.count, window=5, hidden=16, context_tokens=2, width=16)
    dit = DiTConfig(
        width=32,
        ffn_width=64,
        heads=2,
        layers=2,
        latent_channels=4,
        patch=(1, 4, 4),
        audio=audio,
        refiner=RefinerConfig(8, 1, 4, WarpConfig(fine=2)),
        previous=True,
        prediction="x0",
    )
    vae = VAEConfig(4, 8, (8, 8), (1, 1), (8, 8), (1, 1))
    return Preset(
        "tiny",
        64,
        dit,
        vae,
        SamplingConfig(steps=2, window=7, history=2),
        ChunkConfig(frames=2, window=3),
        hearing=hearing,
        gestures=gestures,
    )


def wan_14b() -> Preset:
    """Wan2.1-I2V-14B with audio layers of the MultiTalk family: 18.9 B parameters."""
    return _wan("wan_14b", width=5120, ffn_width=13824, heads=40, layers=40)


def wan_1_3b() -> Preset:
    """The 1.3 B model in its image-to-video form, with the same audio layers, to be trained: none are published."""
    return _wan("wan_1_3b", width=1536, ffn_width=8960, heads=12, layers=30)


def _wan(name: str, width: int, ffn_width: int, heads: int, layers: int) -> Preset:
    # The audio layers hear wav2vec2: 12 layers of 768 channels for each video frame.
    audio = AudioConfig(feature_dim=768, feature_layers=12, window=5, hidden=512, context_tokens=32, width=768)
    dit = DiTConfig(
        width, ffn_width, heads, layers, text=TextConfig(), image=ImageConfig(), audio=audio, reference="once"
    )
    # 21 latent frames are the 81 video frames that Wan2.1 has learned. Steps, shift and guidance are those of
    # MultiTalk and InfiniteTalk at 480p; Wan's own shift there is 3.
    sampling = SamplingConfig(steps=40, shift=7.0, guidance=4.0, window=21)
    # Published few steps are at this shift: lightx2v's four, configs/distill/wan_i2v_distill_4step_cfg.json.
    chunk = ChunkConfig(frames=3, window=7, shift=5.0)
    return Preset(name, 512, dit, WanVAEConfig(), sampling, chunk, finds_face=True)


PRESETS: dict[str, Callable[[], Preset]] = {"pocket": pocket, "tiny": tiny, "wan_14b": wan_14b, "wan_1_3b": wan_1_3b}


def preset(name: str) -> Preset:
    """The preset called `name`. Raises ConfigError for a name that does not exist."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; there are: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]()
