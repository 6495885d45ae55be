"""Wan2.1 image-to-video with MultiTalk's audio layers, written out from the weights alone, to compare with.

One sample, float64, complex rotary positions, loops instead of batched attention.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def layer_norm(x: Tensor, weights: Weights | None = None, name: str = "", eps: float = 1e-6) -> Tensor:
    out = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    return out if weights is None else out * weights[name + ".weight"] + weights[name + ".bias"]


def rms_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weights[name + ".weight"]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """[L, D], [S, D], [S, D] -> [L, D], head by head."""
    out = []
    for a, b, c in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        out.append((a @ b.T / a.shape[-1] ** 0.5).softmax(-1) @ c)
    return torch.cat(out, -1)


def turn(x: Tensor, grid: tuple[int, int, int], heads: int) -> Tensor:
    """Rotary positions of [L, D]."""
    pairs = x.shape[-1] // heads // 2
    counts = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    angles = []
    for axis, count in enumerate(counts):
        rates = 10_000.0 ** -(torch.arange(count).double() / count)
        places = torch.cartesian_prod(*(torch.arange(size) for size in grid))[:, axis].double()
        angles.append(places[:, None] * rates)
    angle = torch.cat(angles, -1)[:, None]
    pairs_LNK = torch.view_as_complex(x.unflatten(-1, (heads, -1, 2)).contiguous())
    return torch.view_as_real(pairs_LNK * torch.polar(torch.ones_like(angle), angle)).flatten(1)


def audio_tokens(weights: Weights, first: Tensor, rest: Tensor, mode: Tensor, tokens: int) -> list[Tensor]:
    """first [window, ...], rest [F - 1, window + 3, ...], mode [F] -> per latent frame [tokens, width]."""
    hidden = [linear(weights, "audio_proj.proj1", first.flatten()).relu()]
    hidden += [linear(weights, "audio_proj.proj1_vf", heard.flatten()).relu() for heard in rest]
    out = []
    for frame, first_layer in enumerate(hidden):
        h = linear(weights, "audio_proj.proj3", linear(weights, "audio_proj.proj2", first_layer).relu())
        normed = layer_norm(h.view(tokens, -1), weights, "audio_proj.norm", 1e-5)
        out.append(normed + weights["audio_mode.weight"][mode[frame]])
    return out


def block(
    weights: Weights,
    name: str,
    x: Tensor,
    e: Tensor,
    grid: tuple[int, int, int],
    heads: int,
    text: Tensor,
    image: Tensor,
    audio: list[Tensor],
) -> Tensor:
    e = e + weights[name + ".modulation"][0]
    own, cross, hear = (name + part for part in (".self_attn.", ".cross_attn.", ".audio_cross_attn."))
    h = layer_norm(x) * (1 + e[1]) + e[0]
    q, k = (turn(rms_norm(weights, own + "norm_" + s, linear(weights, own + s, h)), grid, heads) for s in "qk")
    x = x + linear(weights, own + "o", attend(q, k, linear(weights, own + "v", h), heads)) * e[2]
    h = layer_norm(x, weights, name + ".norm3")
    q = rms_norm(weights, cross + "norm_q", linear(weights, cross + "q", h))
    k = rms_norm(weights, cross + "norm_k", linear(weights, cross + "k", text))
    k_img = rms_norm(weights, cross + "norm_k_img", linear(weights, cross + "k_img", image))
    y = attend(q, k, linear(weights, cross + "v", text), heads)
    y = y + attend(q, k_img, linear(weights, cross + "v_img", image), heads)
    x = x + linear(weights, cross + "o", y)
    q = linear(weights, hear + "q_linear", layer_norm(x, weights, name + ".norm_x"))
    heard = []
    for frame, tokens in enumerate(audio):
        k, v = linear(weights, hear + "kv_linear", tokens).chunk(2, -1)
        heard.append(attend(q.view(grid[0], -1, q.shape[-1])[frame], k, v, heads))
    x = x + linear(weights, hear + "proj", torch.cat(heard))
    h = layer_norm(x) * (1 + e[4]) + e[3]
    h = F.gelu(linear(weights, name + ".ffn.0", h), approximate="tanh")
    return x + linear(weights, name + ".ffn.2", h) * e[5]


def wan(
    weights: Weights,
    x: Tensor,
    sigma: float,
    text: Tensor,
    image: Tensor,
    audio: list[Tensor],
    heads: int,
    freq_dim: int,
) -> Tensor:
    """x: [36, F, H, W] -> the output of the head, [16, F, H, W]."""
    patches = F.conv3d(x[None], weights["patch_embedding.weight"], weights["patch_embedding.bias"], (1, 2, 2))[0]
    grid = tuple(patches.shape[1:])
    h = patches.flatten(1).T
    angle = 1000 * sigma / 10_000 ** (torch.arange(freq_dim // 2).double() / (freq_dim // 2))
    e = torch.cat([angle.cos(), angle.sin()])
    e = linear(weights, "time_embedding.2", F.silu(linear(weights, "time_embedding.0", e)))
    e6 = linear(weights, "time_projection.1", F.silu(e)).view(6, -1)
    text = F.gelu(linear(weights, "text_embedding.0", text), approximate="tanh")
    text = linear(weights, "text_embedding.2", text)
    image = F.gelu(linear(weights, "img_emb.proj.1", layer_norm(image, weights, "img_emb.proj.0", 1e-5)))
    image = layer_norm(linear(weights, "img_emb.proj.3", image), weights, "img_emb.proj.4", 1e-5)
    layers = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    for layer in range(layers):
        h = block(weights, f"blocks.{layer}", h, e6, grid, heads, text, image, audio)
    shift, scale = weights["head.modulation"][0] + e
    h = linear(weights, "head.head", layer_norm(h) * (1 + scale) + shift)
    h = h.view(*grid, 1, 2, 2, -1)
    return torch.einsum("fhwpqrc->cfphqwr", h).reshape(-1, grid[0], 2 * grid[1], 2 * grid[2])
