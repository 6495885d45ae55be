"""Chunk after chunk of a call: what never changes, what each call remembers, and the two steps of making a chunk.

B calls, f latent frames of a chunk, C latent channels, h w latent rows and columns, T video frames, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkingmachines.attention.backends import choose_attention, present_backends
from talkingmachines.attention.kv_cache import KVCache
from talkingmachines.attention.masks import seen_chunks
from talkingmachines.audio.alignment import FRAMES_PER_LATENT, AudioWindows, frames_in
from talkingmachines.dit.compile import CudaGraphs, RecordedDiT, compile_model
from talkingmachines.dit.conditioning import (
    Conditioning,
    KeyValue,
    PreparedConditioning,
    PreparedContext,
    box_mask,
    given_conditioning,
    still_conditioning,
)
from talkingmachines.dit.few_steps import FewStepDiT
from talkingmachines.dit.layers import compute_dtype
from talkingmachines.dit.model import DiT
from talkingmachines.flow.chunk import ChunkConfig, ChunkModel, denoise_chunk
from talkingmachines.malloc import LARGE
from talkingmachines.media.face import Box
from talkingmachines.media.image import fit_image
from talkingmachines.precision import autocast, fast_dtype, sent
from talkingmachines.streaming.audio import AudioStream, ChunkAudio
from talkingmachines.streaming.features import LogMelStream, MakeFeatures
from talkingmachines.types import View
from talkingmachines.vae.build import VideoVAE
from talkingmachines.vae.detail import Detail
from talkingmachines.vae.pixels import to_frames, to_tensor


@dataclass
class Call:
    """All that one call remembers; its size stays the same however long the call lasts.

    audio: what it hears. generator: of its noise. cache: what its chunks see of earlier ones. opening, going_on: what
    chunk 0 and the next later chunk are given: the picture, and the last latent frame made for students that go on from
    it. context: of text and picture tokens. view: the part of its pictures that is shown, all unless given. picture:
    [1, 3, H, W], before chunk 0, where its detail is kept. decoder: what the autoencoder's decoder keeps, a state of
    its own kind; None before chunk 0. detail: from then on, if it is kept. recorded: its passes, where they are
    replayed.
    """

    audio: AudioStream
    generator: torch.Generator
    cache: KVCache
    opening: Conditioning
    going_on: Conditioning
    context: PreparedContext
    view: View | None = None
    picture: Tensor | None = None
    decoder: Any = None
    detail: Detail | None = None
    recorded: RecordedDiT | None = None

    @property
    def chunk(self) -> int:
        """The number of the next chunk."""
        return self.cache.chunks


class Engine:
    """The models, and all that no call changes. One engine serves any number of calls.

    `denoise` changes all of a call but its decoder state and detail, and `decode` changes only these. So the two may
    run at the same time, for one call too; each of them for one chunk of a call at a time, in order.

    student: on `device`; vae: there or on a device of its own. size: height and width of the pictures in pixels, or one
    number for both; face_box: where calls listen unless they say otherwise. dtype: what the models compute in, bfloat16
    or float32; the faster one of the device unless given. features: makes what a call hears with; log-mel unless given.
    keeps_detail: see vae.detail. enlarge: by how much pictures and video are larger than what the models make, each
    way; more than 1 needs keeps_detail. compile: fuse the models, in place, and on CUDA replay the passes of a call
    that is alone in its pass: minutes for the first chunks, then faster ones.

    The student's attention is chosen here, see attention.backends, and kept in `attention`.
    """

    def __init__(
        self,
        student: DiT,
        vae: VideoVAE,
        chunk: ChunkConfig,
        size: int | tuple[int, int],
        device: torch.device,
        face_box: Box,
        dtype: torch.dtype | None = None,
        *,
        features: MakeFeatures = LogMelStream.make,
        keeps_detail: bool = False,
        enlarge: int = 1,
        compile: bool = False,
    ) -> None:
        self.student, self.vae, self.chunk, self.features = student, vae, chunk, features
        self.size = (size, size) if isinstance(size, int) else size
        self.height, self.width = self.size
        self.device, self.face_box, self.dtype = device, face_box, dtype or fast_dtype(device)
        assert enlarge == 1 or keeps_detail, "what makes a video larger is the picture's detail"
        self._made = self.height // enlarge, self.width // enlarge
        h, w = (side // vae.config.spatial_stride for side in self._made)
        self._shape = 1, student.config.latent_channels, chunk.frames, h, w
        self._model = FewStepDiT(student, chunk.sigmas, chunk.window, chunk.frames, h, w)
        self.attention = choose_attention(
            present_backends(device, self.dtype), device, self.dtype, student.config.head_width, self._attention_sizes()
        )
        student.use_attention(self.attention)
        self._keeps_detail = keeps_detail
        kept = LARGE // (3 * torch.float32.itemsize * self.height * self.width)
        self._at_once = FRAMES_PER_LATENT * chunk.frames if enlarge == 1 else max(1, min(FRAMES_PER_LATENT, kept))
        self._replay = compile and device.type == "cuda"
        if compile:
            compile_model(self._model)
            vae.compile_decoder()
        self._nothing = self._no_picture() if student.config.reference == "once" else None

    def _attention_sizes(self) -> list[tuple[int, int]]:
        """Query and key tokens of all attention once a call goes on."""
        config, tokens = self.student.config, self._model.tokens
        sizes = [(tokens, len(seen_chunks(2)) * tokens)]
        sizes += [
            (tokens, told)
            for told in (config.text and config.text.length, config.image and config.image.tokens)
            if told
        ]
        return sizes + ([(tokens // self.chunk.frames, config.audio.context_tokens)] if config.audio else [])

    @property
    def tokens(self) -> int:
        """Of a chunk."""
        return self._model.tokens

    @property
    def _vae_device(self) -> torch.device:
        return self.vae.latent_mean.device

    @torch.inference_mode()
    def open(
        self,
        image: np.ndarray,
        seed: int,
        face_box: Box | None = None,
        *,
        view: View | None = None,
        text: Tensor | None = None,
        picture: Tensor | None = None,
    ) -> Call:
        """A call with the character in `image` [height, width, 3] uint8.

        face_box: the engine's unless given. view: the part that is shown, all unless given. text [1, length, dim],
        picture [1, tokens, dim]: tokens of the prompt and of the picture, for students that are told of them; on any
        device.
        """
        config = self.student.config
        assert config.audio is not None, "a student without audio layers cannot hear"
        assert image.shape == (self.height, self.width, 3), (image.shape, self.height, self.width)
        small = image if self._made == self.size else fit_image(image, self._made)
        opening, going_on = self._given(small, face_box or self.face_box)
        text, picture = (None if tokens is None else tokens.to(self.device) for tokens in (text, picture))
        with autocast(self.device, self.dtype):
            context = self.student.prepare_context(replace(going_on, text=text, image=picture))
            cache = self._model.empty_cache(1, compute_dtype(self.student.head.head.weight))
        return Call(
            AudioStream(self.chunk.frames, config.audio.window, self.features(seed)),
            torch.Generator().manual_seed(seed),
            cache,
            opening,
            going_on,
            context,
            view,
            picture=to_tensor(image) if self._keeps_detail else None,
            recorded=RecordedDiT(self._model, CudaGraphs(self.device)) if self._replay else None,
        )

    def _given(self, image: np.ndarray, box: Box) -> tuple[Conditioning, Conditioning]:
        """The picture, as large as what is made, as chunk 0 is given it, and as every later chunk is."""
        (_, _, frames, h, w), (_, p, q) = self._shape, self.student.config.patch
        channels, pixels = self.student.config.mask_channels, to_tensor(image)
        face = box_mask(box, h // p, w // q)[None].to(self.device)
        if self._nothing is not None:
            shown = torch.zeros(1, 3, frames_in(frames), *self._made)
            shown[:, :, 0] = pixels
            return (
                given_conditioning(self._encode(shown), 1, channels, face_mask=face),
                given_conditioning(self._nothing, 0, channels, face_mask=face),
            )
        reference = self._encode(pixels[:, :, None])[:, :, 0]
        return (
            still_conditioning(reference, frames, channels, reference[:, :, None], face_mask=face),
            still_conditioning(reference, frames, channels, face_mask=face),
        )

    @torch.inference_mode()
    def _no_picture(self) -> Tensor:
        """The latents [1, C, f, h, w] of zeros, as they are in the last chunk of a window of nothing else.

        That is where every chunk sits once the window is full. Those of a clip's start differ: the autoencoder sees
        where a clip begins.
        """
        frames = self.chunk.frames
        zeros = torch.zeros(1, 3, frames_in(frames * self.chunk.window), 1, 1).expand(-1, -1, -1, *self._made)
        return self._encode(zeros)[:, :, -frames:].clone()

    def _encode(self, video: Tensor) -> Tensor:
        """[1, 3, T, H, W] -> [1, C, F, h, w], float32 on the student's device."""
        with autocast(self._vae_device, self.dtype):
            return self.vae.encode(video.to(self._vae_device)).float().to(self.device)

    @torch.inference_mode()
    def denoise(self, calls: Sequence[Call], coming: Sequence[np.ndarray] | None = None) -> Tensor:
        """The next chunk of each call, [B, C, f, h, w] in the order of `calls`, whose sound must be ready.

        coming: what follows the sound of each, see AudioStream.take.
        Calls may be at different chunks. All share one pass per step, but for those at their chunk 0, which hears
        in another shape and has a pass of its own.
        """
        groups: dict[bool, list[int]] = {}
        for index, call in enumerate(calls):
            groups.setdefault(call.chunk == 0, []).append(index)
        made: dict[int, Tensor] = {}
        for group in groups.values():
            heard = [calls[index].audio.take(coming[index] if coming else None) for index in group]
            made |= zip(group, self._denoise([calls[index] for index in group], heard), strict=True)
        return torch.stack([made[index] for index in range(len(calls))])

    def _denoise(self, calls: list[Call], heard: list[ChunkAudio]) -> Tensor:
        steps = self.chunk.steps
        noise = [torch.randn(steps, *self._shape, generator=call.generator) for call in calls]
        with autocast(self.device, self.dtype):
            cond = self.student.prepare(
                self._conditioning(calls, heard),
                _joined_contexts([call.context for call in calls]),
                rope=self._model.ropes.tables[0],
            )
            caches = [call.cache for call in calls]
            model = self.model_for(calls)
            made = denoise_chunk(model, sent(torch.cat(noise, 1), self.device), self._model.sigmas, cond, caches)[-1]
        if self.student.config.previous:
            for call, latents in zip(calls, made, strict=True):
                last = latents[None, :, -1:].expand_as(call.going_on.latents)
                call.going_on = replace(call.going_on, previous=last)
        return made

    def model_for(self, calls: Sequence[Call]) -> ChunkModel[PreparedConditioning, KVCache]:
        """What a pass of these calls goes through."""
        return (calls[0].recorded if len(calls) == 1 else None) or self._model

    def _conditioning(self, calls: list[Call], heard: list[ChunkAudio]) -> Conditioning:
        given = [call.going_on if call.chunk else call.opening for call in calls]
        audio = AudioWindows(
            sent(torch.cat([one.windows.first for one in heard]), self.device),
            sent(torch.cat([one.windows.rest for one in heard]), self.device),
        )
        modes = sent(torch.cat([one.modes for one in heard]), self.device)
        if len(given) == 1:
            return replace(given[0], audio=audio, mode=modes)
        latents, mask = torch.cat([one.latents for one in given]), torch.cat([one.mask for one in given])
        faces = torch.cat([one.face_mask for one in given if one.face_mask is not None])
        before = [one.previous for one in given if one.previous is not None]
        previous = torch.cat(before) if before else None
        return Conditioning(latents, mask, audio=audio, mode=modes, face_mask=faces, previous=previous)

    def decode(self, call: Call, latents: Tensor) -> np.ndarray:
        """The video [T, H, W, 3] uint8 of one chunk [1, C, f, h, w] of `denoise`: 1 + 4(f - 1) frames of chunk 0,
        4f of any other. Of its view alone, as large as the whole.
        """
        return np.concatenate([to_frames(part, call.view) for part in self.decode_video(call, latents)])

    @torch.inference_mode()
    def decode_video(self, call: Call, latents: Tensor) -> list[Tensor]:
        """All of it, before it becomes pixels: [1, 3, T, H, W] on the decoder's device, about in [-1, 1]. A video that
        is enlarged comes in parts of a few frames, whose memory is kept for the next ones, see malloc.
        """
        with autocast(self._vae_device, self.dtype):
            video, after = self.vae.decode_next(latents.to(self._vae_device), call.decoder)
        if call.decoder is None and call.picture is not None:
            call.detail, call.picture = Detail.of(call.picture, video[:, :, :1]), None
        call.decoder = after
        if call.detail is None:
            return [video]
        return [call.detail.put_back(part) for part in video.split(self._at_once, 2)]


def _joined_contexts(contexts: list[PreparedContext]) -> PreparedContext:
    if len(contexts) == 1:
        return contexts[0]
    return PreparedContext(_joined([one.text for one in contexts]), _joined([one.image for one in contexts]))


def _joined(kept: list[tuple[KeyValue, ...]]) -> tuple[KeyValue, ...]:
    """Keys and values of each layer, of one call after the other."""
    return tuple(
        (torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in zip(*kept, strict=True)
    )
