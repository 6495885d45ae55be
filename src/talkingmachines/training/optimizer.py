"""Which optimiser moves which weights."""

import torch
from torch import nn

from talkingmachines.training.config import LoopConfig
from talkingmachines.training.muon import BatchedMuon


def build_optimizers(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of repeated layers where asked for, AdamW for all the rest."""
    muon: list[nn.Parameter] = []
    adamw: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        inside = parameter.ndim == 2 and "blocks." in name
        (muon if config.muon and inside else adamw).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, foreach=True)
    ]
    if muon:
        optimizers.append(BatchedMuon(muon, lr=config.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return optimizers
