"""What the study measures: a student's calls for clips that no training saw, against those clips."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from calls import call
from torch import Tensor

from talkingmachines.audio.alignment import FRAMES_PER_LATENT, frames_in
from talkingmachines.data.crops import crop_weight
from talkingmachines.data.latents import LatentClips
from talkingmachines.dit.model import DiT
from talkingmachines.evaluation import metrics
from talkingmachines.evaluation.reader import FaceReader
from talkingmachines.evaluation.scores import energy
from talkingmachines.flow.chunk import ChunkConfig
from talkingmachines.precision import fast_autocast
from talkingmachines.training.rollout import Batch, Scene
from talkingmachines.training.trajectories import weighted_square
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_pixels

BATCH = 4
SPEAKS = 0.08
"""Standard deviation of the opening of a mouth, in units of a pose, above which it speaks."""
CUT = 2
"""The border of latent frames, counted from 0, at which most clips are cut: changes there are not judged."""
LONG_CLIPS, PERIODS, COMPARED = 2, 25, 3
"""Clips of the long calls; how often each is heard there and back; periods at either end that are compared."""


@dataclass(frozen=True)
class Truth:
    """A clip: pixels of the face [T, H, W, 3], decoded from its latents, what was read of the whole picture, and where
    the face is, y and x in pixels."""

    face: np.ndarray
    read: dict[str, np.ndarray]
    place: tuple[slice, slice]


class Yardstick:
    """clips: those that measure; count: how many. std: unit of x0's error."""

    def __init__(
        self, clips: LatentClips, count: int, vae: CausalVAE, reader: FaceReader, chunk: int, window: int, std: float
    ) -> None:
        self.vae, self.reader, self.window, self.std = vae, reader, window, std
        self.chunks, self.chunk = clips.arrays["latents"].shape[1] // chunk, chunk
        self.batches = [
            _whole(clips, range(at, min(at + BATCH, count)), self.chunks * chunk) for at in range(0, count, BATCH)
        ]
        self.truths = [
            [self._truth(pixels, clips.arrays["face"][BATCH * index + clip]) for clip, pixels in enumerate(videos)]
            for index, videos in enumerate(self._videos(batch["latents"]) for batch in self.batches)
        ]

    def _truth(self, pixels: np.ndarray, face: np.ndarray) -> Truth:
        x0, y0, x1, y1 = (round(float(value) * len(pixels[0])) for value in face)
        place = slice(max(y0, 0), y1), slice(max(x0, 0), x1)
        return Truth(pixels[:, *place].copy(), self.reader.read(pixels), place)

    def _videos(self, latents: Tensor) -> np.ndarray:
        with torch.inference_mode(), fast_autocast(latents.device):
            return to_pixels(self.vae.decode(latents)).numpy()

    def scene(self, batch: Batch) -> Scene:
        return Scene.of(batch, self.window, self.chunk)

    def measure(self, model: DiT, chunk: ChunkConfig, clean: bool) -> dict[str, Any]:
        """All figures of a student; those of clips are lists, one value a clip, in the order of the clips."""
        clips: list[dict[str, float]] = []
        for index, (batch, truths) in enumerate(zip(self.batches, self.truths, strict=True)):
            made = _made(model, chunk, self.scene(batch), self.chunks, clean, index)
            error = (made - batch["latents"])[:, :, 1:]
            for clip, (truth, pixels) in enumerate(zip(truths, self._videos(made), strict=True)):
                x0 = weighted_square(error[clip : clip + 1], batch["weight"][clip : clip + 1, 1:]) / self.std**2
                clips.append({"x0": float(x0)} | self._seen(pixels, truth))
        return {
            "clips": {name: [clip[name] for clip in clips] for name in clips[0]},
            "long": self._long(model, chunk, clean),
            "chunk_ms": self._milliseconds(model, chunk, clean),
        }

    def _seen(self, pixels: np.ndarray, truth: Truth) -> dict[str, float]:
        face, nothing = pixels[:, *truth.place], np.zeros_like(truth.face)
        figures: dict[str, float] = {}
        compared = {"error": (face, truth.face), "made": (face, nothing), "true": (truth.face, nothing)}
        for name, pair in compared.items():
            borders, inside = metrics.change_errors(*pair)
            at_chunk = np.arange(1, len(borders) + 1) % self.chunk == 0
            at_latent = ~at_chunk
            at_chunk[CUT] = False
            figures |= {
                f"inside_{name}": float(inside.mean()),
                f"latents_{name}": float(borders[at_latent].mean()),
                f"chunks_{name}": float(borders[at_chunk].mean()),
            }
        read, opening = self.reader.read(pixels), truth.read["mouth_open"][1:]
        speaks = opening.std() > SPEAKS
        return figures | {
            "lips_r": metrics.pearson(read["mouth_open"][1:], opening) if speaks else float("nan"),
            "motion_made": energy(read),
            "motion_true": energy(truth.read),
        }

    def _long(self, model: DiT, chunk: ChunkConfig, clean: bool) -> dict[str, float]:
        """Calls of two minutes that hear a clip there and back again, over and over: what was true of its way there
        stays true for ever. So the last periods can be compared with early ones; the very first is the clip itself.

        distance: of a period's mean picture from the reference; error: of x0 on the way there.
        """
        batch = {name: tensor[:LONG_CLIPS] for name, tensor in self.batches[0].items()}
        there = self.chunks * self.chunk - 1
        period = 2 * there
        latents = period * PERIODS // self.chunk * self.chunk
        frame = np.arange(frames_in(latents)) % (FRAMES_PER_LATENT * period)
        heard = np.minimum(frame, FRAMES_PER_LATENT * period - frame)
        step = np.arange(latents - 1) % period
        modes = np.concatenate([[0], 1 + np.where(step < there, step, period - 1 - step)])
        told = batch | {"features": batch["features"][:, heard], "modes": batch["modes"][:, modes]}
        made = _made(model, chunk, self.scene(told), latents // self.chunk, clean, 0)
        distances, errors = [], []
        for first in range(1, latents - period + 1, period):
            mean = made[:, :, first : first + period].mean(2)
            distances.append(float((mean - batch["reference"]).square().mean().sqrt()))
            error = made[:, :, first : first + there] - batch["latents"][:, :, 1:]
            errors.append(float(weighted_square(error, batch["weight"][:, 1:])) / self.std**2)
        return {
            f"{name}_{when}": float(np.mean(part))
            for name, values in (("distance", distances), ("error", errors))
            for when, part in (("early", values[1 : 1 + COMPARED]), ("late", values[-COMPARED:]))
        }

    def _milliseconds(self, model: DiT, chunk: ChunkConfig, clean: bool) -> float:
        """Of one chunk of one call, on one core, without decoding: the least of several, as others may be there."""
        alone = self.scene({name: tensor[:1] for name, tensor in self.batches[0].items()})
        times = []
        for _ in range(8):
            began = time.process_time()
            _made(model, chunk, alone, self.chunks, clean, 0)
            times.append(1000 * (time.process_time() - began) / self.chunks)
        return min(times)


@torch.no_grad()
def _made(model: DiT, chunk: ChunkConfig, scene: Scene, chunks: int, clean: bool, seed: int) -> Tensor:
    with fast_autocast(scene.reference.device):
        made, _, _ = call(model, chunk, scene, chunks, torch.Generator().manual_seed(seed), clean=clean)
    return made.float()


def _whole(clips: LatentClips, indices: range, latents: int) -> Batch:
    """Clips with their whole picture, as CallBatches gives them."""
    arrays, chosen = clips.arrays, list(indices)
    video = torch.from_numpy(arrays["latents"][chosen, :latents].astype(np.float32)).transpose(1, 2)
    return {
        "latents": video,
        "reference": video[:, :, 0],
        "features": torch.from_numpy(arrays["features"][chosen, : frames_in(latents)].astype(np.float32)),
        "modes": torch.from_numpy(arrays["modes"][chosen, :latents].astype(np.int64)),
        "weight": torch.from_numpy(np.stack([crop_weight(clips, index, latents) for index in chosen])),
    }
