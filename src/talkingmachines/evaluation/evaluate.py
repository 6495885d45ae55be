"""How good an avatar is, on characters, sentences and voices that it was not trained on."""

import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.clip import Clip
from talkingmachines.data.synthetic.draw import draw, head_mask
from talkingmachines.data.synthetic.looks import draw_clip
from talkingmachines.data.synthetic.pose import POSE_FIELDS, Pose
from talkingmachines.data.synthetic.toon import Toon
from talkingmachines.evaluation import metrics
from talkingmachines.evaluation.clips import (
    CHARACTERS,
    LISTENING,
    RECORDED,
    EvalConfig,
    cast_of,
    listening_clips,
    portraits,
    speaking_clips,
    vae_clips,
)
from talkingmachines.evaluation.elsewhere import elsewhere
from talkingmachines.evaluation.reader import FaceReader, load_reader
from talkingmachines.evaluation.scores import RECORDING_LAGS, Take, envelope_r, lips, motion, real_lips
from talkingmachines.evaluation.toons import ToonTake, toon_lips
from talkingmachines.framing.cut import Framing
from talkingmachines.framing.finder import FaceFinder
from talkingmachines.media.audio import read_audio
from talkingmachines.precision import fast_autocast
from talkingmachines.types import SAMPLE_RATE
from talkingmachines.vae.model import PATCH
from talkingmachines.vae.pixels import to_frames, to_unit
from talkingmachines.weights import load_finder

SHOULDERS = 0.72
"""Above this height (in fractions of the picture) there is only head and background."""

_MOUTH = POSE_FIELDS.index("mouth_open")

Progress = Callable[[int, int], None]
Look = Callable[[str, np.ndarray | None, np.ndarray], None]
"""Is shown each clip: its name, the drawn truth [T, H, W, 3] where there is one, and what was made."""


class Autoencoder(Protocol):
    """What evaluates as an autoencoder: a CausalVAE."""

    def encode(self, video: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...


class Models(Protocol):
    """What avatars and teachers have in common."""

    @property
    def size(self) -> int: ...

    @property
    def vae(self) -> Any: ...

    @property
    def device(self) -> torch.device: ...


class Speaker(Models, Protocol):
    """What evaluates as an avatar."""

    def framing(self, image: np.ndarray) -> Framing: ...
    def generate(self, image: np.ndarray, speech: np.ndarray, *, seed: int) -> np.ndarray: ...


def shipped_recordings() -> list[Path]:
    """Real people speaking, in a fixed order."""
    folder = Path(str(files("talkingmachines") / "assets" / "recordings"))
    return sorted(folder.glob("*.flac"))


def evaluate(
    avatar: Speaker,
    bank: SpeechBank,
    progress: Progress | None = None,
    clips: EvalConfig | None = None,
    *,
    recordings: Sequence[Path] | None = None,
    reader: FaceReader | None = None,
    look: Look | None = None,
) -> dict[str, Any]:
    """All figures, in groups: vae, lips, elsewhere, toons, identity, background, motion, and the seconds it took.

    bank: held-out speech. progress(done, total) counts clips. recordings: of real people, the shipped ones unless
    given. look: is shown every clip. Raises ConfigError for a bank that is too small, CheckpointError without a reader.
    """
    started = time.perf_counter()
    config = clips or EvalConfig()
    recordings = shipped_recordings() if recordings is None else recordings
    reader = (reader or load_reader()).to(avatar.device)
    spoken, heard = speaking_clips(bank, config), listening_clips(bank, config)
    moved, simple = spoken[: config.elsewhere_clips], spoken[: config.toon_clips]
    total = config.vae_clips + sum(map(len, (spoken, moved, simple, heard, recordings)))
    done = 0

    def step(*_: int) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    autoencoder = evaluate_vae(avatar.vae, bank, step, config, size=avatar.size, device=avatar.device, reader=reader)
    studio = _Studio(avatar, reader, config, look)
    speaking, listening, real = [], [], []
    for index, clip in enumerate(spoken):
        speaking.append(studio.play(f"speaking-{index:02}", clip, index))
        step()
    for index, clip in enumerate(heard):
        listening.append(studio.play(f"listening-{index:02}", clip, LISTENING + index))
        step()
    for index, path in enumerate(recordings):
        real.append(studio.record(path, RECORDED + index))
        step()
    lips_r, toons, finder = [], [], load_finder()
    for index, clip in enumerate(moved):
        lips_r.append(_elsewhere_r(avatar, reader, clip, config.seed + index))
        step()
    for index, clip in enumerate(simple):
        toons.append(_play_toon(avatar, finder, clip, index, config.seed + index, look))
        step()
    return {
        "vae": autoencoder,
        "lips": lips(speaking, listening) | real_lips(real),
        "elsewhere": {"r": float(np.mean(lips_r)) if lips_r else None, "clips_r": lips_r, "clips": len(lips_r)},
        "toons": toon_lips(toons),
        "identity": studio.identity(),
        "background": studio.background(),
        "motion": motion(speaking, listening),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _elsewhere_r(avatar: Speaker, reader: FaceReader, clip: Clip, seed: int) -> float:
    """r as in `lips`, of a clip from a picture with the face at some other place and of another size.

    The reader knows one place alone, so this is low, too, where the video has the face elsewhere.
    """
    rng = np.random.default_rng([seed, 31])
    picture = elsewhere(sample_character(clip.character_seed), Pose.from_row(clip.track[0]), rng)
    made = avatar.framing(picture).whole(avatar.generate(picture, clip.samples, seed=seed))
    return metrics.pearson(reader.read(made)["mouth_open"][1:], clip.track[1:, _MOUTH])


def _play_toon(avatar: Speaker, finder: FaceFinder, clip: Clip, toon: int, seed: int, look: Look | None) -> ToonTake:
    """Held-out toon number `toon` in place of the clip's character."""
    true = draw_clip(Toon(toon), clip.track, avatar.size)
    made = avatar.generate(true[0], clip.samples, seed=seed)
    if look is not None:
        look(f"toon-{toon:02}", true, made)
    return ToonTake.of(Toon(toon), clip.track[:, _MOUTH], true, made, finder)


def evaluate_vae(
    vae: Autoencoder,
    bank: SpeechBank,
    progress: Progress | None = None,
    clips: EvalConfig | None = None,
    *,
    size: int = 256,
    device: torch.device | None = None,
    reader: FaceReader | None = None,
) -> dict[str, Any]:
    """How well the autoencoder rebuilds drawn clips of held-out characters.

    psnr_db, psnr_min_db: mean over clips, and the worst clip. border_ratio: error of frame-to-frame differences where
    latent frames meet over that inside them. edge_ratio: error in the outermost 8 pixels above the shoulders over that
    in the 8 beside them. reader_r: mean r between the opening of the mouth that is drawn and the one read from the
    rebuilt video, which bounds what can be read from generated video; only with a reader.
    """
    config = clips or EvalConfig()
    device = device or torch.device("cpu")
    levels, border, inside, edges, read_r = [], [], [], [], []
    chosen = vae_clips(bank, config)
    for index, clip in enumerate(chosen):
        true = draw_clip(sample_character(clip.character_seed), clip.track, size)
        made = rebuild(vae, true, device)
        levels.append(metrics.psnr(made, true))
        errors = metrics.change_errors(made, true)
        border.append(errors[0].mean())
        inside.append(errors[1].mean())
        edges.append(metrics.edge_errors(made, true, round(SHOULDERS * size), PATCH))
        if reader is not None and clip.track[:, _MOUTH].std() > 0.08:
            read_r.append(metrics.pearson(reader.read(made)["mouth_open"], clip.track[:, _MOUTH]))
        if progress is not None:
            progress(index + 1, len(chosen))
    outermost, beside = np.sum(edges, axis=0)
    figures = {
        "psnr_db": float(np.mean(levels)),
        "psnr_min_db": float(np.min(levels)),
        "border_ratio": float(np.mean(border) / np.mean(inside)) if np.any(inside) else 1.0,
        "edge_ratio": float(outermost / beside) if beside else 1.0,
        "clips": len(chosen),
    }
    return figures | ({"reader_r": float(np.mean(read_r))} if read_r else {})


def rebuild(vae: Autoencoder, frames: np.ndarray, device: torch.device) -> np.ndarray:
    """frames: [1 + 4n, H, W, 3] uint8 through the autoencoder and back."""
    with torch.inference_mode(), fast_autocast(device):
        video = to_unit(torch.from_numpy(frames)[None].to(device))
        return to_frames(vae.decode(vae.encode(video)))


class _Studio:
    """Generates clips, reads them, and keeps the figures that all of them share."""

    def __init__(self, avatar: Speaker, reader: FaceReader, config: EvalConfig, look: Look | None) -> None:
        self.avatar, self.reader, self.config, self.look = avatar, reader, config, look
        self.gallery = metrics.identity_vectors(portraits(avatar.size))
        self.faces: list[tuple[bool, np.ndarray, np.ndarray]] = []  # of a drawn clip; of each frame: recognised, alike
        self.detail: list[tuple[float, float, float]] = []  # strength of gradients, made and given; squared error

    def play(self, name: str, clip: Clip, part: int) -> Take:
        """Generates what a drawn clip shows, from its first picture and its sound. part: see cast_of."""
        true = draw_clip(sample_character(clip.character_seed), clip.track, self.avatar.size)
        made = self._generate(
            name, part, true[0], clip.samples, clip.character_seed, Pose.from_row(clip.track[0]), true
        )
        drift = float(np.abs(made.astype(np.int16) - made[0].astype(np.int16)).mean((1, 2, 3)).max())
        return Take(clip, self.reader.read(true), self.reader.read(made), drift)

    def record(self, path: Path, part: int) -> dict[int, float]:
        """r between the opening and the envelope of a recording, both at 1-8 Hz, by lag."""
        samples = read_audio(path)[: int(self.config.recording_seconds * SAMPLE_RATE)]
        character_seed = cast_of(self.config, part)
        picture = draw(sample_character(character_seed), Pose(), self.avatar.size)
        made = self._generate(path.stem, part, picture, samples, character_seed, Pose(), None)
        return envelope_r(self.reader.read(made)["mouth_open"], samples, RECORDING_LAGS)

    def _generate(
        self,
        name: str,
        part: int,
        picture: np.ndarray,
        speech: np.ndarray,
        character: int,
        pose: Pose,
        true: np.ndarray | None,
    ) -> np.ndarray:
        # With one seed for all, all would draw their gestures with the same dice: blink, or not, at the same moments.
        made = self.avatar.generate(picture, speech, seed=self.config.seed + part)
        if self.look is not None:
            self.look(name, true, made)
        vectors = metrics.identity_vectors(made)
        recognised = metrics.nearest(vectors, self.gallery) == character
        self.faces.append((true is not None, recognised, metrics.likeness(vectors, character, self.gallery)))
        size = self.avatar.size
        mask = ~metrics.grow(head_mask(sample_character(character), pose, size), round(16 * size / 256))
        mask[round(SHOULDERS * size) :] = False
        energies = [metrics.gradient_energy(frame, mask) for frame in made]
        errors = [np.square(frame[mask].astype(np.float32) - picture[mask]).mean() for frame in made]
        self.detail.append((float(np.mean(energies)), metrics.gradient_energy(picture, mask), float(np.mean(errors))))
        return made

    def identity(self) -> dict[str, Any]:
        """drawn_top1, drawn_likeness: of the clips that have a drawn truth alone. Recordings begin with the portrait
        itself, which makes them more alike."""
        _, recognised, alike = zip(*self.faces, strict=True)
        drawn = [face for face in self.faces if face[0]]
        return {
            "top1": _mean(recognised),
            "likeness": _mean(alike),
            "drawn_top1": _mean([face[1] for face in drawn]),
            "drawn_likeness": _mean([face[2] for face in drawn]),
            "frames": sum(map(len, recognised)),
            "characters": CHARACTERS,
        }

    def background(self) -> dict[str, Any]:
        """What is beside the head, against the given picture. psnr_db: of all clips together.

        sharpness: strength of the gradients over that in the picture, of all clips together; sharpness_min: of the
        worst clip that has some detail to lose.
        """
        made, given, error = np.sqrt(self.detail).T
        detailed = given > 0.2 * given.mean()
        return {
            "psnr_db": float(-10 * np.log10(max(1e-6, np.square(error).mean() / 255**2))),
            "sharpness": float(made.sum() / given.sum()) if given.any() else 1.0,
            "sharpness_min": float((made[detailed] / given[detailed]).min()) if detailed.any() else 1.0,
            "clips": len(made),
        }


def _mean(of_frames: Sequence[np.ndarray]) -> float:
    """Of all frames of several clips."""
    return float(np.concatenate(of_frames).mean())


def strip(true: np.ndarray | None, made: np.ndarray, every: int = 4, size: int = 128) -> np.ndarray:
    """Every so many frames side by side, the truth above what was made: [rows * size, columns * size, 3] uint8."""
    rows = [made] if true is None else [true, made]
    shrunk = [[np.asarray(Image.fromarray(f).resize((size, size))) for f in row[::every]] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in shrunk])
