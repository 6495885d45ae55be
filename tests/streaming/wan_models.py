"""A tiny system of Wan's kind: prompt, picture tokens, 12 layers of encoded speech, Wan's autoencoder."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from random_weights import randomise
from torch import Tensor

from talkingmachines.audio.alignment import AudioWindows, audio_windows, latent_modes
from talkingmachines.audio.features import activity
from talkingmachines.dit.conditioning import Conditioning, box_mask
from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, TextConfig
from talkingmachines.dit.few_steps import FewStepDiT
from talkingmachines.dit.model import DiT
from talkingmachines.encoders.encoders import Encoders
from talkingmachines.encoders.speech import SpeechEncoder
from talkingmachines.flow.chunk import ChunkConfig, denoise_chunk
from talkingmachines.presets import Preset
from talkingmachines.streaming.engine import Engine
from talkingmachines.streaming.features import SpeechStream
from talkingmachines.vae.pixels import to_frames, to_tensor
from talkingmachines.vae.taehv import TAEHV, TinyWanVAE
from talkingmachines.vae.wan import WanVAE
from talkingmachines.vae.wan_config import WanVAEConfig

HEIGHT, WIDTH = 32, 48
LAYERS, FEATURES = 12, 16


def tiny_wan() -> Preset:
    audio = AudioConfig(FEATURES, LAYERS, window=5, hidden=16, context_tokens=2, width=16)
    dit = DiTConfig(
        width=32,
        ffn_width=64,
        heads=2,
        layers=2,
        text=TextConfig(dim=10, length=5),
        image=ImageConfig(dim=14, tokens=4),
        audio=audio,
        reference="once",
    )
    return Preset("tiny_wan", 32, dit, WanVAEConfig(dim=8, num_res_blocks=1), chunk=ChunkConfig(frames=2, window=3))


def speech_encoder(**other: Any) -> SpeechEncoder:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        **{
            "hidden_size": FEATURES,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "conv_dim": (8,) * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2,
            **other,
        }
    )
    return SpeechEncoder(transformers.Wav2Vec2Model(config))


class SomeTokens:
    """A prompt's from its length, a picture's from its pixels; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def prompts(self, prompts: Any) -> Tensor:
        self.asked += 1
        generators = [torch.Generator().manual_seed(len(prompt)) for prompt in prompts]
        return torch.stack([torch.randn(5, 10, generator=generator) for generator in generators])

    def picture(self, picture: np.ndarray) -> Tensor:
        return torch.randn(1, 4, 14, generator=torch.Generator().manual_seed(int(picture.sum())))


def encoders(prompt: str = "somebody talks") -> Encoders:
    return Encoders(SomeTokens(), speech_encoder(), prompt)


def wan_models(tiny_decoder: bool = False) -> tuple[DiT, WanVAE | TinyWanVAE]:
    spec = tiny_wan()
    student, vae = DiT(spec.dit).eval().requires_grad_(False), WanVAE(WanVAEConfig(dim=8, num_res_blocks=1)).eval()
    randomise(student, 0, 1.0)
    randomise(vae.requires_grad_(False), 1, 1.0)
    if not tiny_decoder:
        return student, vae
    tiny = TAEHV((16, 8, 8, 4)).eval().requires_grad_(False)
    randomise(tiny, 2, 1.0)
    return student, TinyWanVAE(vae, tiny)


def wan_engine(
    chunk: ChunkConfig | None = None, tiny_decoder: bool = False, speech: SpeechEncoder | None = None
) -> Engine:
    spec, (student, vae) = tiny_wan(), wan_models(tiny_decoder)
    hearing = speech or speech_encoder()
    return Engine(
        student,
        vae,
        chunk or spec.chunk,
        (HEIGHT, WIDTH),
        torch.device("cpu"),
        spec.sampling.face_box,
        torch.float32,
        features=SpeechStream.maker(hearing),
    )


def wan_picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def whole_wan_call(
    engine: Engine,
    hearing: SpeechEncoder,
    image: np.ndarray,
    samples: np.ndarray,
    seed: int,
    text: Tensor,
    tokens: Tensor,
) -> tuple[Tensor, np.ndarray]:
    """Latents and frames of a call whose sound, of whole chunks, is known from the start.

    The picture and black after it are coded as one clip, and every chunk is given its text and picture tokens anew.
    """
    config, size = engine.student.config, engine.chunk.frames
    assert config.audio
    total = 1 + (len(samples) // 640 - 1) // 4
    opening = torch.zeros(1, 3, 1 + 4 * (size - 1), HEIGHT, WIDTH)
    opening[:, :, 0] = to_tensor(image)
    nothing = engine.vae.encode(torch.zeros(1, 3, 1 + 4 * (size * engine.chunk.window - 1), HEIGHT, WIDTH))
    h, w = HEIGHT // 8, WIDTH // 8
    given = [engine.vae.encode(opening)] + [nothing[:, :, -size:]] * (total // size - 1)
    windows = audio_windows(_heard(hearing, samples, size), config.audio.window, list(range(size - 1, total, size)))
    modes = latent_modes(activity(samples))[None]
    face = box_mask(engine.face_box, h // 2, w // 2)[None]
    model = FewStepDiT(engine.student, engine.chunk.sigmas, engine.chunk.window, size, h, w)
    cache, generator = model.empty_cache(1, torch.float32), torch.Generator().manual_seed(seed)
    made = []
    for chunk, latents in enumerate(given):
        first = windows.first if chunk == 0 else windows.first[:, :0]
        rest = windows.rest[:, max(chunk * size - 1, 0) : chunk * size + size - 1]
        mask = torch.zeros(1, config.mask_channels, size, h, w)
        mask[:, :, 0] = chunk == 0
        cond = Conditioning(latents, mask, text, tokens, AudioWindows(first, rest), face_mask=face)
        cond = replace(cond, mode=modes[:, chunk * size : (chunk + 1) * size])
        noise = torch.randn(engine.chunk.steps, 1, config.latent_channels, size, h, w, generator=generator)
        made.append(denoise_chunk(model, noise, engine.chunk.sigmas, cond, [cache])[-1])
    whole = torch.cat(made, 2)
    return whole, to_frames(engine.vae.decode(whole))


def _heard(hearing: SpeechEncoder, samples: np.ndarray, size: int) -> Tensor:
    """Features of sound that comes in the pieces of its chunks."""
    rest, state, parts = torch.from_numpy(samples)[None], None, []
    count = 640 * (1 + 4 * (size - 1))
    while rest.shape[1]:
        made, state = hearing.features_next(rest[:, :count], state)
        parts.append(made)
        rest, count = rest[:, count:], 640 * 4 * size
    return torch.cat(parts, 1)
