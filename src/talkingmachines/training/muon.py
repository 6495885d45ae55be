"""torch's Muon (Jordan et al. 2024) with all matrices of a shape moved at once.

One after the other, a transformer's hundred small matrices take a GPU a third of a training step, nearly all of it
spent on launching kernels.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_MATCH_ADAMW = 0.2
"""Root mean square of AdamW's updates, about (Liu et al. 2025, arXiv 2502.16982, section 2.2)."""


class BatchedMuon(torch.optim.Muon):
    """The same arguments, steps and states as torch.optim.Muon with adjust_lr_fn "match_rms_adamw" and nesterov."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the gradients are there already"
        for group in self.param_groups:
            assert group["nesterov"] and group["adjust_lr_fn"] == "match_rms_adamw", "what is not built here"
            of_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    of_shape[parameter.shape].append(parameter)
            for parameters in of_shape.values():
                self._move(parameters, group)

    def _move(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Parameters of one shape."""
        gradients: list[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momenta: list[Tensor] = [self._momentum(parameter) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch.stack(list(torch._foreach_lerp(gradients, momenta, group["momentum"])))
        updates = orthogonalised(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * _MATCH_ADAMW * max(updates.shape[1:]) ** 0.5
        moved: list[Tensor] = list(parameters)
        torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(moved, list(updates.to(moved[0].dtype)), alpha=-rate)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def orthogonalised(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Each of [N, A, B] with all its singular values near 1, bfloat16: Newton and Schulz's iteration of fifth order."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
