"""Clips coded once, so that training a denoiser neither draws nor encodes."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from talkingmachines.audio.alignment import any_in_latent, frames_in, latent_modes
from talkingmachines.audio.features import activity, log_mel
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.excerpt import make_excerpt
from talkingmachines.data.synthetic.gestures import GESTURE_FIELDS, gestures_of
from talkingmachines.data.synthetic.looks import boxes, draw_clip, sample_look
from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.encoders.hearing import Hearing
from talkingmachines.errors import ConfigError
from talkingmachines.media.files import cannot_write, replacing
from talkingmachines.precision import fast_autocast
from talkingmachines.training.checkpoint import fingerprint
from talkingmachines.training.loading import load
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_unit

FIELDS = ("latents", "features", "modes", "shut", "face", "mouth")

_AT_ONCE = 5
"""Clips coded in one pass."""

_KEPT = 50
"""Clips, a multiple of these, after which it is noted that they are done: so it goes on with the same passes."""

_SEEDS = 1_000_003
"""More than there are clips in a run."""

_LIDS = POSE_FIELDS.index("eye_open")
_LIDS_SHUT = 0.5
"""Lids less open than this are shutting."""


@dataclass(frozen=True)
class LatentClipsConfig:
    """clips of `latents` latent frames each, drawn at `size` pixels; with another `seed` all of them are others.

    hearing, encoder: fingerprints of what heard and what coded them.
    """

    clips: int
    latents: int
    size: int
    seed: int = 0
    hearing: str = ""
    encoder: str = ""

    @property
    def known(self) -> dict[str, str]:
        """What a model that learns from them knows, and no other."""
        return {"hearing": self.hearing, "encoder": self.encoder}

    def clip_seed(self, index: int) -> int:
        """What a clip is drawn from."""
        return _SEEDS * self.seed + index


@dataclass(frozen=True)
class _Drawn(Dataset[dict[str, Tensor]]):
    """One excerpt: video uint8 [T, H, W, 3]; mel [M, 320] of its whole clip, of which frames shown [T] are seen;
    gestures [T, G] less those of frame 0, modes [F], shut [F, 2], and of a neutral pose the boxes face and mouth [4].
    """

    bank: SpeechBank
    config: LatentClipsConfig

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        excerpt = make_excerpt(self.config.clip_seed(index), self.bank.split, frames_in(self.config.latents), self.bank)
        clip, shown, track = excerpt.clip, excerpt.shown, excerpt.track
        look = sample_look(clip.character_seed)
        face, mouth = boxes(look)
        gestures = gestures_of(track)
        shut = [track[:, _LIDS] < _LIDS_SHUT, clip.bilabial[shown]]
        return {
            "video": torch.from_numpy(draw_clip(look, track, self.config.size)),
            "mel": log_mel(torch.from_numpy(clip.samples)[None])[0],
            "shown": torch.from_numpy(shown),
            "gestures": torch.from_numpy(gestures - gestures[:1]),
            "modes": latent_modes(activity(clip.samples)[shown]),
            "shut": torch.stack([any_in_latent(flags) for flags in shut], 1),
            "face": torch.tensor(face),
            "mouth": torch.tensor(mouth),
        }


class LatentClips:
    """Memory-mapped arrays of the coded clips, N clips.

    latents: float16 [N, F, C, h, w]; features: float16 [N, T, A], what was heard and the gestures; modes: uint8 [N, F];
    shut: uint8 [N, F, 2], whether lids, and lips on p, b or m, are shut in any of its frames; face, mouth: float32
    [N, 4], boxes x0, y0, x1, y1 in fractions of the picture.

    decoder: fingerprint of the one whose misses the encoder was told; None of earlier clips, which do not say it.
    """

    def __init__(self, folder: Path) -> None:
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FIELDS}
        begun = _progress(folder)
        self.config, self.clips = LatentClipsConfig(**begun["config"]), int(begun["done"])
        self.decoder: str | None = begun.get("decoder")
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
    """Draw, encode and store the clips that are not in `folder` yet.

    Raises ConfigError for a folder of others, MediaError where there is no room for them.
    """
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
    if not done:
        _make_room(folder, {name: (kind, (config.clips, *shape)) for name, (kind, shape) in shapes.items()})
    arrays = {name: open_memmap(folder / f"{name}.npy", "r+") for name in shapes}
    decoder = fingerprint(vae.decoder)
    with load(_Drawn(bank, config), range(done, config.clips), workers, device) as drawn:
        while items := list(islice(drawn, _AT_ONCE)):
            coded = _coded(items, vae, hearing, device)
            for name, array in arrays.items():
                array[done : done + len(items)] = coded[name].cpu().numpy()
            done += len(items)
            if done % _KEPT == 0 or done == config.clips:
                for array in arrays.values():
                    array.flush()
                _write_progress(folder, config, done, decoder)
            progress(done, config.clips)
    return LatentClips(folder)


def _make_room(folder: Path, arrays: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """Takes the whole of the files from the disk. One that is full later ends the process, without a word."""
    for name, (kind, shape) in arrays.items():
        path = folder / f"{name}.npy"
        try:
            open_memmap(path, "w+", kind, shape)
            with path.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise cannot_write(path, error) from error


def _coded(items: list[dict[str, Tensor]], vae: CausalVAE, hearing: Hearing, device: torch.device) -> dict[str, Tensor]:
    """Of _Drawn, what LatentClips keeps, one after the other."""
    with fast_autocast(device):
        latents = vae.encode(to_unit(torch.stack([item["video"] for item in items])))
    # Hearing is causal: silence after the end of the shorter ones changes nothing.
    heard = hearing.of_mel(pad_sequence([item["mel"] for item in items], batch_first=True))
    features = [torch.cat([one[item["shown"]], item["gestures"]], 1) for one, item in zip(heard, items, strict=True)]
    kept = {name: torch.stack([item[name] for item in items]) for name in ("modes", "shut", "face", "mouth")}
    return kept | {"latents": latents.transpose(1, 2).half(), "features": torch.stack(features).half()}


def clips_begun(folder: Path) -> dict[str, Any]:
    """The settings by which `build_latents` makes, or has made, the clips in a folder; none where it has not begun."""
    return _progress(folder)["config"]


def _clips_done(folder: Path, config: LatentClipsConfig) -> int:
    begun = _progress(folder)
    made, asked = begun["config"], asdict(config)
    if made and made != asked:
        names = [name for name in made | asked if made.get(name) != asked.get(name)]
        other = [f"{name}={made.get(name)}, not {asked.get(name)}" for name in names]
        raise ConfigError(f"{folder} holds clips made with {'; '.join(other)}: choose another folder or remove it")
    return int(begun["done"])


def _progress(folder: Path) -> dict[str, Any]:
    """config, the settings of the clips in a folder; done, how many there are; decoder, as of LatentClips. No settings
    and 0 where they have not begun."""
    path = folder / "progress.json"
    return json.loads(path.read_text()) if path.exists() else {"config": {}, "done": 0}


def _write_progress(folder: Path, config: LatentClipsConfig, done: int, decoder: str) -> None:
    with replacing(folder / "progress.json") as partial:
        partial.write_text(json.dumps({"config": asdict(config), "done": done, "decoder": decoder}))
