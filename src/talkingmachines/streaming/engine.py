"""Chunk after chunk of a call: what never changes, what each call remembers, and the two steps of making a chunk.

B calls, f latent frames of a chunk, C latent channels, h w latent rows and columns, T video frames, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from talkingmachines.attention.kv_cache import KVCache
from talkingmachines.audio.alignment import AudioWindows
from talkingmachines.dit.conditioning import (
    Conditioning,
    KeyValue,
    PreparedContext,
    box_mask,
    still_conditioning,
)
from talkingmachines.dit.few_steps import FewStepDiT
from talkingmachines.dit.layers import compute_dtype
from talkingmachines.dit.model import DiT
from talkingmachines.flow.chunk import ChunkConfig, denoise_chunk
from talkingmachines.precision import autocast, fast_dtype
from talkingmachines.streaming.audio import AudioStream, ChunkAudio
from talkingmachines.vae.model import CausalVAE, DecoderState
from talkingmachines.vae.pixels import to_frames, to_tensor

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in fractions of the picture."""


@dataclass
class Call:
    """All that one call remembers; its size stays the same however long the call lasts.

    audio: what it hears. generator: of its noise. cache: what its chunks see of earlier ones. opening, going_on: the
    picture as chunk 0 and as every later chunk is given it. context: of text and picture tokens. decoder: what the
    decoder keeps; None before chunk 0.
    """

    audio: AudioStream
    generator: torch.Generator
    cache: KVCache
    opening: Conditioning
    going_on: Conditioning
    context: PreparedContext
    decoder: DecoderState | None = None

    @property
    def chunk(self) -> int:
        """The number of the next chunk."""
        return self.cache.chunks


class Engine:
    """The models, and all that no call changes. One engine serves any number of calls.

    `denoise` changes all of a call but its decoder state, and `decode` changes only that. So the two may run at the
    same time, for one call too; each of them for one chunk of a call at a time, in order.

    student: on `device`; vae: there or on a device of its own. size: height and width of the pictures in pixels;
    face_box: where calls listen unless they say otherwise. dtype: what the models compute in, bfloat16 or float32;
    the faster one of the device unless given.
    """

    def __init__(
        self,
        student: DiT,
        vae: CausalVAE,
        chunk: ChunkConfig,
        size: int,
        device: torch.device,
        face_box: Box,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.student, self.vae, self.chunk, self.size = student, vae, chunk, size
        self.device, self.face_box, self.dtype = device, face_box, dtype or fast_dtype(device)
        side = size // vae.config.spatial_stride
        self._shape = 1, student.config.latent_channels, chunk.frames, side, side
        self._model = FewStepDiT(student, chunk.sigmas, chunk.window, chunk.frames, side, side)

    @property
    def _vae_device(self) -> torch.device:
        return self.vae.latent_mean.device

    @torch.inference_mode()
    def open(self, image: np.ndarray, seed: int, face_box: Box | None = None) -> Call:
        """A call with the character in `image` [size, size, 3] uint8. face_box: the engine's unless given."""
        config, frames = self.student.config, self.chunk.frames
        assert config.audio is not None, "a student without audio layers cannot hear"
        assert image.shape == (self.size, self.size, 3), (image.shape, self.size)
        with autocast(self._vae_device, self.dtype):
            reference = self.vae.encode_image(to_tensor(image).to(self._vae_device)).float().to(self.device)
        _, p, q = config.patch
        rows, columns = reference.shape[2] // p, reference.shape[3] // q
        face = box_mask(face_box or self.face_box, rows, columns)[None].to(self.device)
        channels, known = config.mask_channels, reference[:, :, None]
        going_on = still_conditioning(reference, frames, channels, face_mask=face)
        with autocast(self.device, self.dtype):
            context = self.student.prepare_context(going_on)
            cache = self._model.empty_cache(1, compute_dtype(self.student.head.head.weight))
        return Call(
            AudioStream(frames, config.audio.window),
            torch.Generator().manual_seed(seed),
            cache,
            still_conditioning(reference, frames, channels, known, face_mask=face),
            going_on,
            context,
        )

    @torch.inference_mode()
    def denoise(self, calls: Sequence[Call]) -> Tensor:
        """The next chunk of each call, [B, C, f, h, w] in the order of `calls`, whose sound must be ready.

        Calls may be at different chunks. All share one pass per step, but for those at their chunk 0, which hears
        in another shape and has a pass of its own.
        """
        groups: dict[bool, list[int]] = {}
        for index, call in enumerate(calls):
            groups.setdefault(call.chunk == 0, []).append(index)
        made: dict[int, Tensor] = {}
        for group in groups.values():
            made |= zip(group, self._denoise([calls[index] for index in group]), strict=True)
        return torch.stack([made[index] for index in range(len(calls))])

    def _denoise(self, calls: list[Call]) -> Tensor:
        heard = [call.audio.take() for call in calls]
        steps = self.chunk.steps
        noise = torch.cat([torch.randn(steps, *self._shape, generator=call.generator) for call in calls], 1)
        with autocast(self.device, self.dtype):
            cond = self.student.prepare(
                self._conditioning(calls, heard),
                _joined_contexts([call.context for call in calls]),
                rope=self._model.ropes.tables[0],
            )
            caches = [call.cache for call in calls]
            return denoise_chunk(self._model, noise.to(self.device), self._model.sigmas, cond, caches)[-1]

    def _conditioning(self, calls: list[Call], heard: list[ChunkAudio]) -> Conditioning:
        given = [call.going_on if call.chunk else call.opening for call in calls]
        audio = AudioWindows(
            torch.cat([one.windows.first for one in heard]).to(self.device),
            torch.cat([one.windows.rest for one in heard]).to(self.device),
        )
        modes = torch.cat([one.modes for one in heard]).to(self.device)
        if len(given) == 1:
            return replace(given[0], audio=audio, mode=modes)
        latents, mask = torch.cat([one.latents for one in given]), torch.cat([one.mask for one in given])
        faces = torch.cat([one.face_mask for one in given if one.face_mask is not None])
        return Conditioning(latents, mask, audio=audio, mode=modes, face_mask=faces)

    @torch.inference_mode()
    def decode(self, call: Call, latents: Tensor) -> np.ndarray:
        """The video [T, H, W, 3] uint8 of one chunk [1, C, f, h, w] of `denoise`: 1 + 4(f - 1) frames of chunk 0,
        4f of any other.
        """
        with autocast(self._vae_device, self.dtype):
            video, call.decoder = self.vae.decode_next(latents.to(self._vae_device), call.decoder)
        return to_frames(video)


def _joined_contexts(contexts: list[PreparedContext]) -> PreparedContext:
    if len(contexts) == 1:
        return contexts[0]
    return PreparedContext(_joined([one.text for one in contexts]), _joined([one.image for one in contexts]))


def _joined(kept: list[tuple[KeyValue, ...]]) -> tuple[KeyValue, ...]:
    """Keys and values of each layer, of one call after the other."""
    return tuple(
        (torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in zip(*kept, strict=True)
    )
