"""Clips coded once, so that training a denoiser neither draws nor encodes."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.utils.data import Dataset

from talkingmachines.audio.alignment import any_in_latent, frames_in, latent_modes
from talkingmachines.audio.features import activity, log_mel
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.draw import draw_clip, face_box, mouth_box
from talkingmachines.data.synthetic.excerpt import make_excerpt
from talkingmachines.data.synthetic.gestures import GESTURE_FIELDS, gestures_of
from talkingmachines.data.synthetic.pose import POSE_FIELDS, Pose
from talkingmachines.encoders.hearing import Hearing
from talkingmachines.errors import ConfigError
from talkingmachines.precision import fast_autocast
from talkingmachines.training.loading import load
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_unit

CROPS, CROP_SHARES = (1 / 2, 3 / 4, 1), (0.5, 0.3, 0.2)
"""Sides of the squares that a teacher trains on, over the picture's, and how often each is drawn."""

FIELDS = ("latents", "features", "modes", "shut", "face", "mouth")

_LIDS = POSE_FIELDS.index("eye_open")
_LIDS_SHUT = 0.5
"""Lids less open than this are shutting."""


@dataclass(frozen=True)
class LatentClipsConfig:
    """clips of `latents` latent frames each, drawn at `size` pixels from `seed` on.

    hearing: fingerprint of what heard them.
    """

    clips: int
    latents: int
    size: int
    seed: int = 0
    hearing: str = ""


@dataclass(frozen=True)
class _Drawn(Dataset[dict[str, Tensor]]):
    """One excerpt: video uint8 [T, H, W, 3]; mel [M, 320] of its whole clip, of which frames shown [T] are seen;
    gestures [T, G] less those of frame 0, modes [F], shut [F, 2], and of a neutral pose the boxes face and mouth [4].
    """

    bank: SpeechBank
    config: LatentClipsConfig

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        excerpt = make_excerpt(self.config.seed + index, self.bank.split, frames_in(self.config.latents), self.bank)
        clip, shown, track = excerpt.clip, excerpt.shown, excerpt.track
        character = sample_character(clip.character_seed)
        gestures = gestures_of(track)
        shut = [track[:, _LIDS] < _LIDS_SHUT, clip.bilabial[shown]]
        return {
            "video": torch.from_numpy(draw_clip(character, track, self.config.size)),
            "mel": log_mel(torch.from_numpy(clip.samples)[None])[0],
            "shown": torch.from_numpy(shown),
            "gestures": torch.from_numpy(gestures - gestures[:1]),
            "modes": latent_modes(activity(clip.samples)[shown]),
            "shut": torch.stack([any_in_latent(flags) for flags in shut], 1),
            "face": torch.tensor(face_box(character, Pose())),
            "mouth": torch.tensor(mouth_box(character, Pose())),
        }


class LatentClips:
    """Memory-mapped arrays of the coded clips, N clips.

    latents: float16 [N, F, C, h, w]; features: float16 [N, T, A], what was heard and the gestures; modes: uint8 [N, F];
    shut: uint8 [N, F, 2], whether lids, and lips on p, b or m, are shut in any of its frames; face, mouth: float32
    [N, 4], boxes x0, y0, x1, y1 in fractions of the picture.
    """

    def __init__(self, folder: Path) -> None:
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FIELDS}
        stored = json.loads((folder / "progress.json").read_text())
        self.clips, self.config = int(stored["done"]), LatentClipsConfig(**stored["config"])
        self.cells = self.arrays["latents"].shape[-1]


@torch.no_grad()
def build_latents(
    folder: Path,
    vae: CausalVAE,
    hearing: Hearing,
    bank: SpeechBank,
    config: LatentClipsConfig,
    device: torch.device,
    workers: int,
    progress: Callable[[int, int], None],
) -> LatentClips:
    """Draw, encode and store the clips that are not in `folder` yet. Raises ConfigError for a folder of others."""
    folder.mkdir(parents=True, exist_ok=True)
    done = _clips_done(folder, config)
    frames, cells = frames_in(config.latents), config.size // vae.config.spatial_stride
    shapes = {
        "latents": ("f2", (config.latents, vae.config.latent_channels, cells, cells)),
        "features": ("f2", (frames, hearing.config.dim + len(GESTURE_FIELDS))),
        "modes": ("u1", (config.latents,)),
        "shut": ("u1", (config.latents, 2)),
        "face": ("f4", (4,)),
        "mouth": ("f4", (4,)),
    }
    arrays = {
        name: open_memmap(folder / f"{name}.npy", "r+")
        if done
        else open_memmap(folder / f"{name}.npy", "w+", kind, (config.clips, *shape))
        for name, (kind, shape) in shapes.items()
    }
    with load(_Drawn(bank, config), range(done, config.clips), workers, device) as drawn:
        for index, item in enumerate(drawn, start=done):
            video = to_unit(item.pop("video")[None])
            with fast_autocast(device):
                item["latents"] = vae.encode(video)[0].transpose(0, 1).half()
            heard = hearing.of_mel(item.pop("mel")[None])[0, item.pop("shown")]
            item["features"] = torch.cat([heard, item.pop("gestures")], 1).half()
            for name, array in arrays.items():
                array[index] = item[name].cpu().numpy()
            if (index + 1) % 50 == 0 or index + 1 == config.clips:
                for array in arrays.values():
                    array.flush()
                _write_progress(folder, config, index + 1)
            progress(index + 1, config.clips)
    return LatentClips(folder)


def clips_begun(folder: Path) -> int | None:
    """How many clips `build_latents` makes, or has made, in a folder; None where it has not begun."""
    path = folder / "progress.json"
    return int(json.loads(path.read_text())["config"]["clips"]) if path.exists() else None


def _clips_done(folder: Path, config: LatentClipsConfig) -> int:
    path = folder / "progress.json"
    if not path.exists():
        return 0
    stored = json.loads(path.read_text())
    made, asked = stored["config"], asdict(config)
    if made != asked:
        names = [name for name in made | asked if made.get(name) != asked.get(name)]
        other = [f"{name}={made.get(name)}, not {asked.get(name)}" for name in names]
        raise ConfigError(f"{folder} holds clips made with {'; '.join(other)}: choose another folder or remove it")
    return int(stored["done"])


def _write_progress(folder: Path, config: LatentClipsConfig, done: int) -> None:
    partial = folder / "progress.json.partial"
    partial.write_text(json.dumps({"config": asdict(config), "done": done}))
    os.replace(partial, folder / "progress.json")


@dataclass(frozen=True)
class TeacherBatches(Dataset[dict[str, Tensor]]):
    """Windows of coded clips, as TeacherStage wants them.

    window: latent frames; history: how many are given when a window does not start a clip.
    batch: samples of 3/4 of the picture's height and width; a batch of smaller squares around the face has more of
    them, so that all batches cost the same. What lies outside the head hardly changes. Crops are multiples of `patch`.
    """

    clips: LatentClips
    window: int
    history: int
    patch: int
    batch: int = 8
    seed: int = 0

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        squares = batch_squares(rng, self.clips, self.patch, self.batch)
        return stacked([self._window(rng, *square) for square in squares])

    def _window(self, rng: np.random.Generator, index: int, rows: slice, columns: slice) -> dict[str, Tensor]:
        arrays = self.clips.arrays
        latest = arrays["latents"].shape[1] - self.window
        start = int(rng.integers(1, latest + 1)) if latest and rng.random() < 0.5 else 0
        clip = arrays["latents"][index][:, :, rows, columns].astype(np.float32)
        frames = slice(frames_in(start + 1) - 1, frames_in(start + self.window))
        return {
            "latents": torch.from_numpy(clip[start : start + self.window]).transpose(0, 1),
            "reference": torch.from_numpy(clip[0]),
            "known": torch.tensor(self.history if start else 1),
            "features": torch.from_numpy(arrays["features"][index][frames].astype(np.float32)),
            "modes": torch.from_numpy(arrays["modes"][index][start : start + self.window].astype(np.int64)),
            "weight": torch.from_numpy(crop_weight(self.clips, index, start + self.window)[start:, rows, columns]),
        }


def batch_squares(
    rng: np.random.Generator, clips: LatentClips, patch: int, batch: int, cuts: int = 1
) -> Iterator[tuple[int, slice, slice]]:
    """Clip, rows and columns of latent cells of each sample of a batch: squares of one size.

    As many as cost as much as `batch` of 3/4 of the picture's side. cuts: squares from each clip, one after the other.
    """
    crop = patch * max(1, round(clips.cells * rng.choice(CROPS, p=CROP_SHARES) / patch))
    count = max(1, round(batch * (0.75 * clips.cells / crop) ** 2))
    for done in range(0, count, cuts):
        index = int(rng.integers(clips.clips))
        for _ in range(min(cuts, count - done)):
            yield index, *_face_square(rng, clips.arrays["face"][index], crop, clips.cells, patch)


def stacked(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def _face_square(rng: np.random.Generator, face: np.ndarray, crop: int, cells: int, patch: int) -> tuple[slice, slice]:
    """A square on the grid of tokens around the face, give or take a token."""
    x0, y0, x1, y1 = (float(value) for value in face)
    middle = np.array([y0 + y1, x0 + x1]) / 2 * cells
    offset = patch * np.rint((middle - crop / 2) / patch + rng.uniform(-0.75, 0.75, 2)).astype(int)
    top, left = offset.clip(0, cells - crop)
    return slice(top, top + crop), slice(left, left + crop)


def crop_weight(clips: LatentClips, index: int, frames: int) -> np.ndarray:
    """[frames, cells, cells]: how much an error counts in each latent cell of a clip, and after its end.

    Most at the mouth, then at the eyes; more still in the few frames in which they shut, which an average over all
    frames would leave half open.
    """
    cells, known = clips.cells, clips.arrays["shut"][index][:frames]
    shut = np.zeros((frames, 2), bool)
    shut[: len(known)] = known
    weight = np.ones((frames, cells, cells), np.float32)
    face, mouth = clips.arrays["face"][index], clips.arrays["mouth"][index]
    x0, y0, x1, y1 = face
    eyes = np.array([x0, y0 + 0.18 * (y1 - y0), x1, y0 + 0.5 * (y1 - y0)])
    weight[:, *_box_cells(face, cells)] = 3
    weight[:, *_box_cells(eyes, cells)] = np.where(shut[:, 0], 18, 6)[:, None, None]
    weight[:, *_box_cells(mouth, cells)] = np.where(shut[:, 1], 60, 12)[:, None, None]
    return weight


def _box_cells(box: np.ndarray, cells: int) -> tuple[slice, slice]:
    """The latent cells of a box, with a margin of one for the head's motion."""
    x0, y0, x1, y1 = (float(value) * cells for value in box)
    return (
        slice(max(0, int(y0) - 1), min(cells, int(y1) + 2)),
        slice(max(0, int(x0) - 1), min(cells, int(x1) + 2)),
    )
