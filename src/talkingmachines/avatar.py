"""A character that can be made to speak: the models put together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkingmachines.audio.alignment import (
    FRAMES_PER_LATENT,
    audio_windows,
    frames_in,
    num_frames,
    num_latents,
    pad_to_frames,
)
from talkingmachines.audio.features import activity, log_mel
from talkingmachines.dit.conditioning import Conditioning, still_conditioning
from talkingmachines.dit.model import DiT
from talkingmachines.errors import CheckpointError, ConfigError, MediaError
from talkingmachines.flow.sampler import sample
from talkingmachines.flow.schedule import sampling_sigmas
from talkingmachines.media.image import fit_image
from talkingmachines.precision import fast_autocast
from talkingmachines.presets import PRESETS, Preset, preset
from talkingmachines.types import FPS
from talkingmachines.vae.model import CausalVAE
from talkingmachines.weights import load_weights, read_metadata

Progress = Callable[[int, int], None]


def to_tensor(pixels: np.ndarray) -> Tensor:
    """[H, W, 3] uint8 -> [1, 3, H, W] in [-1, 1]"""
    return torch.from_numpy(np.array(pixels)).movedim(-1, 0)[None].float() / 127.5 - 1


def to_frames(video: Tensor) -> np.ndarray:
    """[1, 3, T, H, W] in [-1, 1] -> [T, H, W, 3] uint8"""
    return ((video[0].float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).cpu().numpy()


def box_mask(box: tuple[float, float, float, float], rows: int, columns: int) -> Tensor:
    """[rows, columns] of 0 and 1: the tokens that a box (x0, y0, x1, y1, in fractions) touches."""
    x0, y0, x1, y1 = box
    row, column = torch.arange(rows), torch.arange(columns)
    inside_y = (row + 1 > y0 * rows) & (row < y1 * rows)
    inside_x = (column + 1 > x0 * columns) & (column < x1 * columns)
    return (inside_y[:, None] & inside_x[None]).float()


def latent_modes(speaking: np.ndarray) -> Tensor:
    """bool [1 + 4n] per video frame -> long [1 + n]: a latent frame speaks if any of its frames does."""
    rest = speaking[1:].reshape(-1, FRAMES_PER_LATENT).any(1)
    return torch.from_numpy(np.concatenate([speaking[:1], rest])).long()


@dataclass(frozen=True)
class Speech:
    """A recording as the models hear it. features: [1, 1 + 4n, C]; modes: [1, 1 + n]."""

    features: Tensor
    modes: Tensor

    @classmethod
    def of(cls, samples: np.ndarray) -> "Speech":
        """samples: float32 [n], mono 16 kHz, in whole latent frames after padding with silence."""
        frames = frames_in(num_latents(num_frames(len(samples))))
        padded = pad_to_frames(samples, frames)
        features = log_mel(torch.from_numpy(padded)[None])
        return cls(features, latent_modes(activity(padded))[None])


class Avatar:
    """A preset's models, loaded. Holds weights and nothing that changes."""

    fps = FPS

    def __init__(self, spec: Preset, vae: CausalVAE, teacher: DiT, device: torch.device) -> None:
        self.preset = spec
        self.device = device
        self.vae = vae.to(device).eval().requires_grad_(False)
        self.teacher = teacher.to(device).eval().requires_grad_(False)

    @property
    def size(self) -> int:
        """Height and width of the video in pixels."""
        return self.preset.size

    def generate(
        self,
        image: np.ndarray,
        speech: np.ndarray,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        face_box: tuple[float, float, float, float] | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """A clip of the character in `image` saying `speech`.

        image: [H, W, 3] uint8 RGB of any size, cut to a square; speech: float32 [n], mono 16 kHz in [-1, 1].
        steps, guidance, face_box: the preset's unless given. progress(done, total) counts denoising steps.
        Returns [T, size, size, 3] uint8, T the fewest frames at 25 fps that last as long as the speech.
        Raises MediaError for speech that is empty or not finite, ConfigError for settings that cannot work.
        """
        blocks = self.stream_generate(
            image, speech, seed=seed, steps=steps, guidance=guidance, face_box=face_box, progress=progress
        )
        return np.concatenate(list(blocks))

    def stream_generate(
        self,
        image: np.ndarray,
        speech: np.ndarray,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        face_box: tuple[float, float, float, float] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[np.ndarray]:
        """As `generate`, but yields the clip in blocks of frames as they are made, in constant memory."""
        speech = _checked_speech(speech)
        sampling = self.preset.sampling
        steps = sampling.steps if steps is None else steps
        guidance = sampling.guidance if guidance is None else guidance
        if steps < 1 or not np.isfinite(guidance):
            raise ConfigError(f"steps must be at least 1 and guidance finite, got {steps} and {guidance}")
        heard = Speech.of(speech)
        left, state = num_frames(len(speech)), None
        box = sampling.face_box if face_box is None else face_box
        for latents in self._windows(image, heard, seed, steps, guidance, box, progress):
            with fast_autocast(self.device):
                video, state = self.vae.decode_next(latents, state)
            frames = to_frames(video)[:left]
            left -= len(frames)
            yield frames

    def _windows(
        self,
        image: np.ndarray,
        speech: Speech,
        seed: int,
        steps: int,
        guidance: float,
        face_box: tuple[float, float, float, float],
        progress: Progress | None,
    ) -> Iterator[Tensor]:
        """Latents [1, C, f, h, w] of one window after the other, without the frames given by the one before."""
        sampling, generator = self.preset.sampling, torch.Generator().manual_seed(seed)
        with fast_autocast(self.device):
            pixels = to_tensor(fit_image(image, self.size)).to(self.device)
            reference = self.vae.encode_image(pixels).float()
        total, known = speech.modes.shape[1], reference[:, :, None]
        starts = window_starts(total, sampling.window, sampling.history)
        sigmas = sampling_sigmas(steps, sampling.shift)
        for index, start in enumerate(starts):
            end = min(start + sampling.window, total)
            count = known.shape[2]
            noise = torch.randn(1, *reference.shape[1:2], end - start, *reference.shape[2:], generator=generator)
            cond, free = self._conditioning(reference, known, speech, start, end, face_box)
            with fast_autocast(self.device), torch.no_grad():
                latents = sample(
                    self.teacher,
                    noise.to(self.device),
                    sigmas,
                    self.teacher.prepare(cond),
                    self.teacher.prepare(free),
                    guidance,
                    _offset(progress, index * steps, len(starts) * steps),
                )
            yield latents if index == 0 else latents[:, :, count:]
            known = latents[:, :, -sampling.history :]

    def _conditioning(
        self,
        reference: Tensor,
        known: Tensor,
        speech: Speech,
        start: int,
        end: int,
        face_box: tuple[float, float, float, float],
    ) -> tuple[Conditioning, Conditioning]:
        """Of latent frames start .. end - 1, with audio and without."""
        config = self.preset.dit
        assert config.audio is not None
        rows, columns = reference.shape[2] // config.patch[1], reference.shape[3] // config.patch[2]
        heard = speech.features[:, frames_in(start + 1) - 1 : frames_in(end)].to(self.device)
        conditional = still_conditioning(
            reference,
            end - start,
            config.mask_channels,
            known,
            audio_windows(heard, config.audio.window),
            speech.modes[:, start:end].to(self.device),
            box_mask(face_box, rows, columns)[None].to(self.device),
        )
        return conditional, still_conditioning(reference, end - start, config.mask_channels, known)


def window_starts(total: int, window: int, history: int) -> list[int]:
    """First latent frames of the windows that cover `total`, each sharing `history` with the one before."""
    starts = [0]
    while starts[-1] + window < total:
        starts.append(starts[-1] + window - history)
    return starts


def _offset(progress: Progress | None, before: int, total: int) -> Progress | None:
    return progress and (lambda done, _: progress(before + done, total))


def _checked_speech(speech: np.ndarray) -> np.ndarray:
    if speech.ndim != 1 or len(speech) == 0:
        raise MediaError(f"speech must be mono samples [n] with n > 0, got shape {list(speech.shape)}")
    if not np.isfinite(speech).all():
        raise MediaError("speech has samples that are not finite; clean the recording")
    return speech.astype(np.float32)


def choose_device(device: str) -> torch.device:
    """auto: the GPU if there is one. Raises ConfigError for a device that does not exist here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} is not available here; use 'auto' or 'cpu'") from error
    return chosen


def weights_folder(name_or_path: str) -> Path:
    """Where the weights of a shipped preset are, or a folder of the user's own."""
    if name_or_path in PRESETS:
        return Path(str(files("talkingmachines") / "assets" / "weights" / name_or_path))
    path = Path(name_or_path)
    if not path.is_dir():
        raise ConfigError(
            f"{name_or_path!r} is neither a preset ({', '.join(sorted(PRESETS))}) nor a folder with weights"
        )
    return path


def load(name_or_path: str = "pocket", *, device: str = "auto") -> Avatar:
    """An Avatar from a preset's name or a folder of weights.

    Raises ConfigError for an unknown name, CheckpointError for weights that are missing, damaged or foreign.
    """
    folder = weights_folder(name_or_path)
    named = read_metadata(folder, "teacher").get("preset")
    if named not in PRESETS:
        raise CheckpointError(f"the weights in {folder} are of preset {named!r}, which this version does not know")
    spec = preset(str(named))
    vae, teacher = CausalVAE(spec.vae), DiT(spec.dit)
    load_weights(folder, "vae", vae)
    load_weights(folder, "teacher", teacher)
    return Avatar(spec, vae, teacher, choose_device(device))
