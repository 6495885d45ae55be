"""Compiled and recorded passes against plain ones."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from dit_models import SMALL, WAN, conditioning, random_model
from recordable import Recordable, without_autocast
from test_causal import CHUNK, SIGMAS, H, W, few_steps, part
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from talkingmachines.attention.attention import fused
from talkingmachines.attention.backends import Backend, CheckedAttention
from talkingmachines.dit.compile import RecordedDiT, Run, compile_model
from talkingmachines.dit.config import DiTConfig
from talkingmachines.dit.few_steps import FewStepDiT
from talkingmachines.flow.chunk import ChunkModel, denoise_chunk

CHUNKS = 8


def call(student: FewStepDiT, passes: ChunkModel | None = None, B: int = 1, chunks: int = CHUNKS) -> Tensor:  # type: ignore[type-arg]
    """Latents of a call whose later chunks all have the same picture."""
    config = student.model.config
    cond = conditioning(config, F=CHUNK * chunks, H=H, W=W, B=B)
    later = part(cond, 1)
    noise = torch.randn(2, *cond.latents.shape, generator=torch.Generator().manual_seed(5))
    cache, made = student.empty_cache(B, torch.float32), []
    context = student.model.prepare_context(cond)
    for chunk in range(chunks):
        own = part(cond, chunk)
        if chunk:
            own = replace(own, latents=later.latents, mask=later.mask)
            if own.previous is not None:  # one frame for all of the chunk, as a call gives it
                own = replace(own, previous=own.previous[:, :, :1].expand_as(own.latents))
        prepared = student.model.prepare(own, context)
        frames = slice(CHUNK * chunk, CHUNK * (chunk + 1))
        made.append(denoise_chunk(passes or student, noise[:, :, :, frames], SIGMAS, prepared, [cache])[-1])
    return torch.cat(made, 2)


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("config", [SMALL, WAN], ids=["small", "wan"])
@torch.no_grad()
def test_recorded_passes_equal_plain_ones(config: DiTConfig) -> None:
    """With a recorder that runs the function again: what is given to a replay, and where it is written."""
    student, recorded, replays = few_steps(random_model(config)), [], []

    def record(run: Run) -> Run:
        recorded.append(run)
        return lambda: (replays.append(1), run())[1]

    torch.testing.assert_close(call(student, RecordedDiT(student, record)), call(student), atol=1e-5, rtol=1e-5)
    # The window is full from chunk 3 on, and the first pass there is a plain one.
    assert len(recorded) == 2 and len(replays) == 2 * (CHUNKS - 4)


@pytest.mark.parametrize("config", [SMALL, WAN], ids=["small", "wan"])
@torch.no_grad()
def test_what_is_recorded_takes_nothing_from_the_processor(config: DiTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    without_autocast(monkeypatch)
    student, recorded = few_steps(random_model(config).to("meta")), []

    def record(run: Run) -> Run:
        def on_the_device_alone() -> Tensor:
            with Recordable():
                recorded.append(run())
            return recorded[-1]

        return on_the_device_alone

    with torch.device("meta"):
        call(student, RecordedDiT(student, record))
    assert len(recorded) == 2 * (CHUNKS - 4) and recorded[0].is_meta


@torch.no_grad()
def test_a_recording_is_of_one_call() -> None:
    student = few_steps(random_model(SMALL))
    passes = RecordedDiT(student, lambda run: run)
    call(student, passes)
    with pytest.raises(AssertionError, match="another call"):
        call(student, passes)


@pytest.mark.parametrize("config", [SMALL, WAN], ids=["small", "wan"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@torch.inference_mode()
def test_every_layer_and_step_shares_what_is_compiled(config: DiTConfig, half: bool) -> None:
    """Two halves of a layer, the turning of keys for 0, 1 and 2 chunks before, and the head: whatever the depth."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        check_compiled(config)


def check_compiled(config: DiTConfig) -> None:
    from torch._dynamo.testing import CompileCounter

    model = random_model(config)
    # A kernel that is chosen by a context, and checked.
    model.use_attention(CheckedAttention(Backend("math", in_context), torch.bfloat16, 0.0))
    wanted = call(few_steps(model))
    counter, student = CompileCounter(), few_steps(model)
    compile_model(student, counter)
    torch.testing.assert_close(call(student), wanted, atol=1e-5, rtol=1e-5)
    assert counter.frame_count <= 2 + 3 + 1
    # Neither does a recording need anything new, which could not be compiled while it is made.
    torch.testing.assert_close(call(student, RecordedDiT(student, lambda run: run)), wanted, atol=1e-5, rtol=1e-5)
    assert counter.frame_count <= 2 + 3 + 1


def in_context(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return fused(q, k, v)


@pytest.mark.slow
@torch.inference_mode()
def test_compiled_equals_plain() -> None:
    model = random_model(WAN)
    wanted = call(few_steps(model))
    student = few_steps(model)
    compile_model(student)
    torch.testing.assert_close(call(student), wanted, atol=1e-4, rtol=1e-4)
