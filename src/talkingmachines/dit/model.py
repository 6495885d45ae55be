"""The diffusion transformer.

B batch, C latent channels, F latent frames, H W latent rows and columns, h w token rows and columns,
L = F h w tokens, D width. Layout and parameter names are those of Wan2.1 image-to-video, with the audio layers of
the MultiTalk family (`audio_proj`, `blocks.N.norm_x`, `blocks.N.audio_cross_attn`) and `audio_mode` of our own.
"""

from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from talkingmachines.attention.attention import Attention, attention
from talkingmachines.attention.masks import sparse_causal_mask
from talkingmachines.attention.rope import RopeTable, rope_table
from talkingmachines.dit.audio import AudioCrossAttention, AudioProjection
from talkingmachines.dit.block import CrossAttention, DiTBlock, attend_all
from talkingmachines.dit.causal import Past
from talkingmachines.dit.conditioning import (
    Conditioning,
    KeyValue,
    PreparedConditioning,
    PreparedContext,
    PreparedSigma,
)
from talkingmachines.dit.config import DiTConfig, ImageConfig
from talkingmachines.dit.layers import LayerNorm, compute_dtype, modulate
from talkingmachines.dit.refiner import Refiner
from talkingmachines.patches import permute_runs
from talkingmachines.precision import multiply_in

SILENT = (
    "head.head.weight",
    "audio_cross_attn.proj.weight",
    "audio_mode.weight",
    "refiner.conv_out.weight",
    "refiner.conv_out.bias",
    "refiner.gated_out.weight",
    "refiner.gated_out.bias",
    "refiner.keep.weight",
    "refiner.keep.bias",
    "refiner.skip.weight",
    "refiner.skip.bias",
    "refiner.flow.2.weight",
    "refiner.flow.2.bias",
    "refiner.moved_in.weight",
    "refiner.moved_in.bias",
    "refiner.moved_out.weight",
    "refiner.moved_out.bias",
    "refiner.hear.2.weight",
)
"""Weights that begin at zero, so that a fresh layer changes nothing."""

MIN_SIGMA = 0.02
"""Floor of the division that makes a velocity from x0. No step of a sampler is smaller, or it would not end at x0."""


def sinusoidal_embedding(timestep_B: Tensor, width: int) -> Tensor:
    """[B, width] float32: cosines, then sines, of rates that fall from 1 to about 1 / 10000."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float64, device=timestep_B.device)
    angle = torch.outer(timestep_B.double(), 10_000.0 ** (-steps / half))
    return torch.cat([angle.cos(), angle.sin()], 1).float()


class ImageProjection(nn.Module):
    """Image tokens [B, tokens, dim] -> [B, tokens, D]."""

    def __init__(self, config: ImageConfig, width: int) -> None:
        super().__init__()
        dim = config.dim
        self.proj = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, width), nn.LayerNorm(width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.proj(tokens)


class Head(nn.Module):
    """Tokens [B, L, D] -> one patch each, [B, L, patch * config.out_channels]."""

    def __init__(self, config: DiTConfig, patch_size: int) -> None:
        super().__init__()
        self.norm = LayerNorm(config.width, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.width, patch_size * config.out_channels)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.width) / config.width**0.5)

    def forward(self, x_BLD: Tensor, time_BD: Tensor) -> Tensor:
        shift, scale = (self.modulation + time_BD[:, None]).chunk(2, 1)
        return self.head(modulate(self.norm(x_BLD), shift, scale).to(compute_dtype(x_BLD)))


class DiT(nn.Module):
    """Velocity of noisy latents, given a picture or first frames, audio, and perhaps text and image tokens.

    With prediction "x0" the network's output R is what changes against the conditioning latents:
    x0 = cond.latents + (1 - mask) * R. Given frames come back exactly, and a still background costs nothing.
    A fresh model predicts R = 0 (or velocity 0), and its audio layers change nothing.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.attention: Attention = attention
        width, text, image, audio = config.width, config.text, config.image, config.audio
        self.patch_embedding = nn.Conv3d(config.in_channels, width, config.patch, config.patch)
        if text:
            self.text_embedding = nn.Sequential(nn.Linear(text.dim, width), nn.GELU("tanh"), nn.Linear(width, width))
        if image:
            self.img_emb = ImageProjection(image, width)
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        if audio:
            self.audio_proj = AudioProjection(audio)
            self.audio_mode = nn.Embedding(audio.modes, audio.width)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.layers))
        self.head = Head(config, config.patch[0] * config.patch[1] * config.patch[2])
        if config.refiner:
            self.refiner = Refiner(config)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        nn.init.zeros_(self.patch_embedding.bias)  # type: ignore[arg-type]
        for name, parameter in self.named_parameters():
            if name.startswith(("time_embedding", "text_embedding")) and name.endswith("weight"):
                nn.init.normal_(parameter, std=0.02)
            if name.endswith(SILENT):
                nn.init.zeros_(parameter)

    def use_attention(self, chosen: Attention) -> None:
        """Compute all attention with `chosen` from now on, such as what backends.choose_attention gives."""
        self.attention = chosen
        for module in self.modules():
            if isinstance(module, CrossAttention | AudioCrossAttention):
                module.attention = chosen

    def multiply_in(self, dtype: torch.dtype) -> None:
        """See precision.multiply_in."""
        multiply_in(self, dtype, self.time_embedding, self.time_projection)

    def _layers(self) -> list[DiTBlock]:
        return list(self.blocks)  # type: ignore[arg-type]

    def prepare(
        self,
        cond: Conditioning,
        context: PreparedContext | None = None,
        chunk: int | None = None,
        rope: RopeTable | None = None,
    ) -> PreparedConditioning:
        """All that the noisy latents and sigma do not change: once for a whole sampling run, or for one chunk.

        context: of prepare_context, when it is known already. chunk: latent frames of a chunk, for a causal model
        that is given all chunks of a window at once; None lets every token see all others. rope: of the positions,
        when it is known already.
        """
        B, _, F, H, W = cond.latents.shape
        h, w = H // self.config.patch[1], W // self.config.patch[2]
        rope = rope or rope_table(self.config.head_width, range(F), h, w, cond.latents.device)
        face_mask = None if cond.face_mask is None else cond.face_mask.reshape(B, 1, h * w, 1)
        visible = None
        if chunk is not None:
            assert F % chunk == 0, f"{F} latent frames are not whole chunks of {chunk}"
            visible = sparse_causal_mask(F // chunk, chunk * h * w, cond.latents.device)
        context = context or self.prepare_context(cond)
        previous = None
        if self.config.previous:
            assert cond.previous is not None, "this model needs the previous latents"
            # One frame stands for many where it is expanded, and a recorded pass needs a place for each.
            previous = cond.previous.contiguous()
        audio, heard = self._audio(cond, F)
        return PreparedConditioning(cond.latents, cond.mask, rope, context, audio, face_mask, visible, heard, previous)

    def prepare_sigma(self, sigma: Tensor) -> PreparedSigma:
        """What the layers make of sigma [B]: once for all passes at it."""
        return PreparedSigma(sigma, *self.embed_time(sigma))

    def prepare_context(self, cond: Conditioning) -> PreparedContext:
        """Of the text and picture tokens, which stay the same for a whole call."""
        text: tuple[KeyValue, ...] = ()
        image: tuple[KeyValue, ...] = ()
        if self.config.text:
            assert cond.text is not None, "this model needs text tokens"
            tokens = self.text_embedding(cond.text)
            text = tuple(block.cross_attn.text_key_value(tokens) for block in self._layers())
        if self.config.image:
            assert cond.image is not None, "this model needs image tokens"
            tokens = self.img_emb(cond.image)
            image = tuple(block.cross_attn.image_key_value(tokens) for block in self._layers())
        return PreparedContext(text, image)

    def _audio(self, cond: Conditioning, num_latents: int) -> tuple[tuple[KeyValue, ...], Tensor | None]:
        """Keys and values of each layer, and what the refiner hears."""
        if cond.audio is None:
            return (), None
        assert cond.audio.num_latents == num_latents, (cond.audio.num_latents, num_latents)
        tokens_BFAD = self.audio_proj(cond.audio)
        if cond.mode is not None:
            tokens_BFAD = tokens_BFAD + self.audio_mode(cond.mode)[:, :, None]
        heard = self.refiner.listen(tokens_BFAD) if self.config.refiner else None
        return tuple(block.audio_cross_attn.key_value(tokens_BFAD) for block in self._layers()), heard

    def embed_time(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """sigma [B] -> the time embedding [B, D] and the modulation of the layers [B, 6, D], both float32."""
        embedding = sinusoidal_embedding(1000 * sigma.float(), self.config.freq_dim)
        # As in Wan, in the precision of the parameters: bfloat16 would not tell neighbouring timesteps apart.
        with torch.autocast(sigma.device.type, enabled=False):
            time_BD = self.time_embedding(embedding.to(self.head.modulation.dtype))
            time_B6D = self.time_projection(time_BD).unflatten(1, (6, -1))
        return time_BD.float(), time_B6D.float()

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | PreparedSigma,
        cond: Conditioning | PreparedConditioning,
        past: Past | None = None,
    ) -> Tensor:
        """x [B, C, F, H, W] noisy at sigma [B] -> velocity of that shape.

        H and W must be multiples of the patch. The residual stream and the result have the dtype of x.
        past: x is one chunk of each call in it, which sees, and is kept in, the call's cache.
        """
        return self.with_warp(x, sigma, cond, past)[0]

    def with_warp(
        self,
        x: Tensor,
        sigma: Tensor | PreparedSigma,
        cond: Conditioning | PreparedConditioning,
        past: Past | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As forward; and what a model with a warp would make by moving the picture and no more: x0, of x's shape."""
        cond = self.prepare(cond) if isinstance(cond, Conditioning) else cond
        sigma = self.prepare_sigma(sigma) if isinstance(sigma, Tensor) else sigma
        output, moved = self._network(x, sigma, cond, past)
        if moved is not None:
            moved = cond.latents + (1 - cond.mask[:, :1]) * moved
        if self.config.prediction == "velocity":
            return output, moved
        x0 = cond.latents + (1 - cond.mask[:, :1]) * output
        return ((x - x0) / sigma.sigma.clamp(min=MIN_SIGMA).view(-1, 1, 1, 1, 1)).to(x.dtype), moved

    def _network(
        self, x: Tensor, sigma: PreparedSigma, cond: PreparedConditioning, past: Past | None
    ) -> tuple[Tensor, Tensor | None]:
        (p, q), (F, H, W) = self.config.patch[1:], x.shape[2:]
        tokens = self._embed(x, cond)
        for layer, block in enumerate(self._layers()):
            contexts = tuple(kv[layer] for kv in (cond.context.text, cond.context.image) if kv)
            audio = cond.audio[layer] if cond.audio else None
            attend = (
                partial(past.attend, layer) if past else partial(attend_all, self.attention, cond.rope, cond.visible)
            )
            tokens = block(tokens, sigma.time_B6D, attend, contexts, audio=audio, face_mask=cond.face_mask)
        patches = self.head(tokens, sigma.time_BD).to(x.dtype)
        cells = rearrange(patches, "b (f h w) (p q c) -> b c f (h p) (w q)", f=F, h=H // p, w=W // q, p=p, q=q)
        if not self.config.refiner:
            return cells, None
        refined, moved = self.refiner(cells, x, sigma.sigma, cond)
        return refined.to(x.dtype), moved

    def _embed(self, x: Tensor, cond: PreparedConditioning) -> Tensor:
        """Tokens [B, L, D]."""
        given = [cond.latents] if cond.previous is None else [cond.latents, cond.previous]
        pixels = torch.cat([x, cond.mask.to(x.dtype), *(latents.to(x.dtype) for latents in given)], 1)
        # The convolution does not overlap, so it is a linear layer on patches, which is faster.
        p, q = self.config.patch[1:]
        cells = pixels.unflatten(4, (-1, q)).unflatten(3, (-1, p))
        patches = permute_runs(cells, 0, 2, 3, 5, 1, 4).flatten(4).flatten(1, 3)
        embedding = self.patch_embedding
        return nn.functional.linear(patches, embedding.weight.flatten(1), embedding.bias).to(x.dtype)
