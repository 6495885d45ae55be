"""The closed-form start of the autoencoder: principal components of its patches."""

import torch
from torch import Tensor

from talkingmachines.patches import to_patches
from talkingmachines.vae.model import PATCH, CausalVAE, stack_frames


@torch.no_grad()
def start_from_pca(vae: CausalVAE, video: Tensor) -> None:
    """Set the linear layers to the whitened principal components of `video` [B, 3, 4F, H, W] in [-1, 1].

    The whole then equals a linear autoencoder, and the convolutions (zero at the end of each path) learn what it
    misses.
    """
    rows = to_patches(stack_frames(video.float()), PATCH).flatten(0, -2).double()
    mean = rows.mean(0)
    covariance = (rows - mean).T @ (rows - mean) / len(rows)
    values, vectors = torch.linalg.eigh(covariance)
    count = vae.config.latent_channels
    basis = vectors[:, -count:].flip(1)
    scale = values[-count:].flip(0).clamp_min(1e-8).sqrt()
    encoder, decoder = vae.encoder.linear, vae.decoder.linear
    encoder.weight.copy_((basis / scale).T[:, :, None, None])
    encoder.bias.copy_(-(mean @ (basis / scale)))  # type: ignore[union-attr]
    decoder.weight.copy_((basis * scale)[:, :, None, None])
    decoder.bias.copy_(mean)  # type: ignore[union-attr]
