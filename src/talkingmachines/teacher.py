"""A character made to speak by the teacher: a whole clip at a time, in many steps, hearing what is to come."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkingmachines.audio.alignment import (
    audio_windows,
    frames_in,
    latent_modes,
    num_frames,
    num_latents,
    pad_to_frames,
)
from talkingmachines.audio.features import activity
from talkingmachines.audio.samples import check_samples
from talkingmachines.dit.conditioning import Conditioning, box_mask, still_conditioning
from talkingmachines.dit.model import DiT
from talkingmachines.errors import ConfigError, MediaError
from talkingmachines.flow.sampler import sample
from talkingmachines.flow.schedule import sampling_sigmas
from talkingmachines.framing.cut import Fit, Framing, fit_centre
from talkingmachines.media.face import Box
from talkingmachines.media.image import check_picture
from talkingmachines.precision import choose_device, fast_autocast
from talkingmachines.presets import Preset
from talkingmachines.streaming.features import FeatureStream, LogMelStream, MakeFeatures
from talkingmachines.types import FPS
from talkingmachines.vae.build import build_vae
from talkingmachines.vae.detail import Detail
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_frames, to_tensor
from talkingmachines.vae.wan import WanVAE
from talkingmachines.weights import load_features, load_fit, load_weights, read_preset, weights_folder

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Speech:
    """A recording as the models hear it. features: [1, 1 + 4n, C]; modes: [1, 1 + n]."""

    features: Tensor
    modes: Tensor

    @classmethod
    def of(cls, samples: np.ndarray, features: FeatureStream) -> "Speech":
        """samples: float32 [n], mono 16 kHz, in whole latent frames after padding with silence."""
        frames = frames_in(num_latents(num_frames(len(samples))))
        padded = pad_to_frames(samples, frames)
        return cls(features.push(torch.from_numpy(padded)[None]), latent_modes(activity(padded))[None])


class Teacher:
    """A preset's teacher, loaded: what the student learns from. Holds weights and nothing that changes."""

    fps = FPS

    def __init__(
        self,
        spec: Preset,
        vae: CausalVAE | WanVAE,
        teacher: DiT,
        device: torch.device,
        features: MakeFeatures = LogMelStream.make,
        fit: Fit | None = None,
    ) -> None:
        """features, fit: see weights.load_features and load_fit."""
        self.preset = spec
        self.features = features
        self._fit = fit or partial(fit_centre, size=spec.size)
        self.device = device
        self.vae = vae.to(device).eval().requires_grad_(False)
        self.teacher = teacher.to(device).eval().requires_grad_(False)

    @property
    def size(self) -> int:
        """Height and width of the video in pixels."""
        return self.preset.size

    def framing(self, image: np.ndarray) -> Framing:
        """See Avatar.framing."""
        check_picture(image)
        return self._fit(image)

    def generate(
        self,
        image: np.ndarray,
        speech: np.ndarray,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        face_box: Box | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """A clip of the character in `image` saying `speech`.

        image: [H, W, 3] uint8 RGB of any size, cut as by Avatar.fit; speech: float32 [n], mono 16 kHz, cut to
        [-1, 1].
        steps, guidance, face_box: the preset's unless given. progress(done, total) counts denoising steps.
        Returns [T, size, size, 3] uint8, T the fewest frames at 25 fps that last as long as the speech.
        Raises MediaError for a picture that is none and for speech that is empty or not finite, ConfigError for
        settings that cannot work.
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
        face_box: Box | None = None,
        progress: Progress | None = None,
    ) -> Iterator[np.ndarray]:
        """As `generate`, but yields the clip in blocks of frames as they are made, in constant memory."""
        framing = self.framing(image)
        check_samples(speech)
        if not len(speech):
            raise MediaError("speech must have at least one sample")
        speech = speech.clip(-1, 1).astype(np.float32)
        sampling = self.preset.sampling
        steps = sampling.steps if steps is None else steps
        guidance = sampling.guidance if guidance is None else guidance
        if steps < 1 or not np.isfinite(guidance):
            raise ConfigError(f"steps must be at least 1 and guidance finite, got {steps} and {guidance}")
        heard = Speech.of(speech, self.features(seed))
        left = num_frames(len(speech))
        state: Any = None
        detail: Detail | None = None
        box = sampling.face_box if face_box is None else self.preset.check_box(face_box)
        for latents in self._windows(framing.pixels, heard, seed, steps, guidance, box, progress):
            with fast_autocast(self.device):
                video, state = self.vae.decode_next(latents, state)
            if detail is None and self.preset.keeps_detail:
                detail = Detail.of(to_tensor(framing.pixels), video[:, :, :1])
            frames = to_frames(detail.put_back(video) if detail else video, framing.view)[:left]
            left -= len(frames)
            yield frames

    def _windows(
        self,
        image: np.ndarray,
        speech: Speech,
        seed: int,
        steps: int,
        guidance: float,
        face_box: Box,
        progress: Progress | None,
    ) -> Iterator[Tensor]:
        """Latents [1, C, f, h, w] of one window after the other, without the frames given by the one before."""
        sampling, generator = self.preset.sampling, torch.Generator().manual_seed(seed)
        with fast_autocast(self.device):
            pixels = to_tensor(image).to(self.device)
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
        face_box: Box,
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


def load_teacher(name_or_path: str = "pocket", *, device: str = "auto") -> Teacher:
    """A Teacher from a preset's name or a folder of weights.

    Raises ConfigError for an unknown name and for presets that are told of a prompt, CheckpointError for weights that
    are missing, damaged or foreign.
    """
    folder = weights_folder(name_or_path)
    spec = read_preset(folder, "teacher")
    if spec.dit.text:
        raise ConfigError(
            f"the teacher of {spec.name} makes no clips here: convert the weights with --as student, and leave out "
            "--teacher"
        )
    vae, teacher = build_vae(spec.vae), DiT(spec.dit)
    load_weights(folder, "vae", vae)
    load_weights(folder, "teacher", teacher)
    features = load_features(folder, spec) or LogMelStream.make
    return Teacher(spec, vae, teacher, choose_device(device), features, load_fit(folder, spec, (spec.size, spec.size)))
