"""A character that speaks, live: the student that makes it so, and the ways to use it."""

from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import torch

from talkingmachines.audio.alignment import FRAMES_PER_LATENT, num_frames, num_latents
from talkingmachines.audio.samples import check_samples
from talkingmachines.dit.model import DiT
from talkingmachines.errors import MediaError
from talkingmachines.media.image import fit_image
from talkingmachines.placement.pipeline import stream_frames
from talkingmachines.precision import choose_device
from talkingmachines.presets import Preset
from talkingmachines.streaming.engine import Box, Call, Engine
from talkingmachines.streaming.pacing import LiveCall
from talkingmachines.streaming.session import Session
from talkingmachines.types import FPS
from talkingmachines.vae.build import build_vae
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.wan import WanVAE
from talkingmachines.weights import load_weights, read_preset, weights_folder

Progress = Callable[[int, int], None]


class Avatar:
    """A preset's student, loaded. Holds weights and nothing that changes; all its sessions share them.

    engine: for those who run several calls in one batch, or denoise and decode at the same time.
    """

    fps = FPS

    def __init__(
        self,
        spec: Preset,
        vae: CausalVAE | WanVAE,
        student: DiT,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.preset = spec
        self.device = device
        self.vae = vae.to(device).eval().requires_grad_(False)
        self.student = student.to(device).eval().requires_grad_(False)
        self.engine = Engine(self.student, self.vae, spec.chunk, spec.size, device, spec.sampling.face_box, dtype)

    @property
    def size(self) -> int:
        """Height and width of the video in pixels."""
        return self.preset.size

    def session(self, image: np.ndarray, seed: int = 0) -> Session:
        """A call with the character in `image` [H, W, 3] uint8 RGB of any size, cut to a square.

        Raises MediaError for anything else.
        """
        return Session(self.engine, self._open(image, seed, None))

    def live(self, image: np.ndarray, seed: int = 0) -> LiveCall:
        """A session in real time: while nothing is said, the character listens by itself. Raises as `session`."""
        return LiveCall(self.session(image, seed), FRAMES_PER_LATENT * self.preset.chunk.frames)

    def generate(
        self,
        image: np.ndarray,
        speech: np.ndarray,
        *,
        seed: int = 0,
        face_box: Box | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """A clip of the character in `image` saying `speech`.

        image: [H, W, 3] uint8 RGB of any size, cut to a square; speech: float32 [n], mono 16 kHz, cut to [-1, 1].
        face_box: the preset's unless given. progress(done, total) counts chunks.
        Returns [T, size, size, 3] uint8, T the fewest frames at 25 fps that last as long as the speech.
        Raises MediaError for a picture that is none, and for speech that is empty or not finite.
        """
        return np.concatenate(
            list(self.stream_generate(image, speech, seed=seed, face_box=face_box, progress=progress))
        )

    def stream_generate(
        self,
        image: np.ndarray,
        speech: np.ndarray,
        *,
        seed: int = 0,
        face_box: Box | None = None,
        progress: Progress | None = None,
    ) -> Iterator[np.ndarray]:
        """As `generate`, but yields the clip chunk by chunk as it is made, in constant memory."""
        check_samples(speech)
        if not len(speech):
            raise MediaError("speech must have at least one sample")
        call = self._open(image, seed, face_box)
        left = num_frames(len(speech))
        total = -(-num_latents(left) // self.preset.chunk.frames)
        with closing(stream_frames(self.engine, [call], [[speech]])) as chunks:
            for done, [block] in enumerate(chunks, start=1):
                yield block[:left]
                left -= len(block)
                if progress:
                    progress(done, total)

    def _open(self, image: np.ndarray, seed: int, face_box: Box | None) -> Call:
        given = isinstance(image, np.ndarray)
        if not given or image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
            found = f"{image.dtype} {list(image.shape)}" if given else type(image).__name__
            raise MediaError(f"a picture must be an array [H, W, 3] of uint8, got {found}; use read_image")
        return self.engine.open(fit_image(image, self.size), seed, face_box)


def load(name_or_path: str = "pocket", *, device: str = "auto", dtype: torch.dtype | None = None) -> Avatar:
    """An Avatar from a preset's name or a folder of weights. dtype: see Engine.

    Raises ConfigError for an unknown name, CheckpointError for weights that are missing, damaged or foreign.
    """
    folder = weights_folder(name_or_path)
    spec = read_preset(folder, "student")
    vae, student = build_vae(spec.vae), DiT(spec.dit)
    load_weights(folder, "vae", vae)
    load_weights(folder, "student", student)
    return Avatar(spec, vae, student, choose_device(device), dtype)
