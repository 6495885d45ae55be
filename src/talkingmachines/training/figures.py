"""What is told of a training as it goes on."""

from torch import Tensor


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's r [] of all values, in float32. Under autocast torch.corrcoef multiplies in bfloat16, 0.01 off."""
    a, b = (values.detach().float() - values.detach().float().mean() for values in (one, other))
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()
