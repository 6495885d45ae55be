"""Which kernel computes attention: the fastest one that is here and proves right on this machine.

A kernel may run without an error on a card that it was not made for, and give noise or a black picture. So before one
is used it is tried on random tensors of the sizes to come, against plain products in float32. One that raises, or is
off, is passed over with a warning in the log.

L query tokens, S key tokens, N heads, K head width.
"""

import importlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from talkingmachines.attention.attention import attention, fused, products
from talkingmachines.errors import ConfigError
from talkingmachines.precision import bf16_instructions

log = logging.getLogger(__name__)

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q [B, L, N, K], k and v [B, S, N, K] -> [B, L, N, K], without a mask."""

LIMITS = {torch.float32: 1e-4, torch.bfloat16: 8e-3}
"""The most that a kernel may be off in a dtype, see `attention_error`: what rounding explains, and little more."""

_ROW_SHARE = 0.1
"""A single query may be off ten times as much as all of them together."""

_HEADS = 2
"""Of the tensors for the check: more would show nothing new."""


@dataclass(frozen=True)
class Backend:
    name: str
    kernel: Kernel


@dataclass(frozen=True)
class CheckedAttention:
    """An Attention by a backend that was found right in `dtype`, off by `error`.

    What a backend is not made for, masks and other dtypes, plain `attention` computes.
    """

    backend: Backend
    dtype: torch.dtype
    error: float

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor:
        if mask is not None or v.dtype != self.dtype:
            return attention(q, k, v, mask)
        return self.backend.kernel(q, k, v)


def present_backends(device: torch.device, dtype: torch.dtype) -> list[Backend]:
    """What can be tried on a device, the fastest first."""
    plain = [Backend("sdpa", fused), Backend("products", products)]
    if device.type == "cpu":
        # torch's fused kernel multiplies bfloat16 by AMX alone: in half the time of plain products, and else in twice.
        slow = dtype == torch.bfloat16 and "amx_bf16" not in bf16_instructions()
        return plain[::-1] if slow else plain
    if device.type != "cuda" or dtype == torch.float32:
        return plain
    hopper = torch.cuda.get_device_capability(device)[0] == 9
    flash3 = _flash("flash-attention 3", "flash_attn_interface") if hopper else []
    return [*flash3, *_flash("flash-attention 2", "flash_attn"), Backend("cudnn", _cudnn), *plain]


def choose_attention(
    backends: Sequence[Backend],
    device: torch.device,
    dtype: torch.dtype,
    head_width: int,
    sizes: Sequence[tuple[int, int]],
) -> CheckedAttention:
    """The first backend that is right at all sizes (L, S) that will be used.

    Raises ConfigError if there is none.
    """
    for backend in backends:
        try:
            errors = [attention_error(backend.kernel, device, dtype, head_width, L, S) for L, S in sizes]
        except Exception as error:  # kernels raise anything, and the next one is to be tried whatever it was
            log.warning("attention by %s fails here and is not used: %s", backend.name, _first_line(error))
            continue
        if all(error <= LIMITS[dtype] for error in errors):
            return CheckedAttention(backend, dtype, max(errors))
        log.warning("attention by %s is off by %.2g here and is not used", backend.name, max(errors))
    names = ", ".join(backend.name for backend in backends)
    raise ConfigError(f"no attention kernel gives right results on {device} in {dtype} (tried {names}); use another")


@torch.inference_mode()
def attention_error(kernel: Kernel, device: torch.device, dtype: torch.dtype, head_width: int, L: int, S: int) -> float:
    """How far a kernel is from plain products in float32: the norm of the difference over that of the result.

    Of all queries, or a tenth of it for the worst one if that is more: a kernel may be wrong at the edges alone.
    Infinite where the result is not finite, or of another shape.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, size, _HEADS, head_width) for size in (L, S, S)]
    q, k, v = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    made = kernel(q, k, v)
    if made.shape != q.shape or made.dtype != dtype:
        return math.inf
    wanted = products(q.float(), k.float(), v.float())
    off, size = (tensor.norm(dim=-1) for tensor in (made.float() - wanted, wanted))
    typical = size.square().mean().sqrt()
    error = float(torch.maximum(off.square().mean().sqrt(), _ROW_SHARE * off.amax()) / typical)
    return error if math.isfinite(error) else math.inf


def _flash(name: str, module: str) -> list[Backend]:
    try:
        function = importlib.import_module(module).flash_attn_func
    except ModuleNotFoundError:
        return []
    except (ImportError, OSError, AttributeError) as error:
        log.warning("%s is installed and cannot be used: %s", name, _first_line(error))
        return []

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        made = function(q, k, v)
        # Some versions also return the sums of the exponentials.
        return made[0] if isinstance(made, tuple) else made

    return [Backend(name, kernel)]


def _cudnn(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor) -> Tensor:
    q, k, v = (tensor.transpose(1, 2) for tensor in (q_BLNK, k_BSNK, v_BSNK))
    # Not by torch.nn.attention.sdpa_kernel, which chooses for all threads: other models need other kernels meanwhile.
    return torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, False)[0].transpose(1, 2)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
