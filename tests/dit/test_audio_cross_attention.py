"""Who hears what."""

from dataclasses import replace

import torch
from dit_models import AUDIO, SMALL, conditioning, noisy, random_model
from torch import Tensor

from talkingmachines.dit.audio import AudioCrossAttention


def layer() -> AudioCrossAttention:
    return random_model(SMALL).blocks[0].audio_cross_attn


def tokens_and_queries() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, AUDIO.context_tokens, AUDIO.width, generator=generator),
        torch.randn(2, 4 * 6, SMALL.width, generator=generator),
    )


@torch.no_grad()
def test_equals_a_loop() -> None:
    attn, (tokens, x) = layer(), tokens_and_queries()
    face_mask = torch.rand(2, 1, 6, 1, generator=torch.Generator().manual_seed(1))
    out = attn(x, attn.key_value(tokens), face_mask)
    for b in range(2):
        for i in range(x.shape[1]):
            q = attn.q_linear(x[b, i]).view(SMALL.heads, -1)
            k, v = attn.kv_linear(tokens[b, i // 6]).chunk(2, -1)
            heard = []
            for n, (key, value) in enumerate(zip(k.chunk(SMALL.heads, -1), v.chunk(SMALL.heads, -1), strict=True)):
                heard.append((key @ q[n] / SMALL.head_width**0.5).softmax(0) @ value)
            expected = attn.proj(torch.cat(heard)) * face_mask[b, 0, i % 6]
            torch.testing.assert_close(out[b, i], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_audio_of_a_latent_frame_is_heard_by_that_frame_only() -> None:
    attn, (tokens, x) = layer(), tokens_and_queries()
    before = attn(x, attn.key_value(tokens), None).unflatten(1, (4, 6))
    for frame in range(4):
        other = tokens.clone()
        other[:, frame] += 1
        after = attn(x, attn.key_value(other), None).unflatten(1, (4, 6))
        changed = (after != before).flatten(2).any(-1).any(0)
        assert changed.tolist() == [f == frame for f in range(4)]


@torch.no_grad()
def test_tokens_of_a_latent_frame_come_from_its_window_and_mode() -> None:
    model, cond = random_model(SMALL), conditioning(SMALL, F=4)
    before = model.prepare(cond).audio[1][0].unflatten(0, (2, 4))
    rest = cond.audio.rest.clone()
    rest[:, 1] += 1
    mode = cond.mode.clone()
    mode[:, 3] = 1 - mode[:, 3]
    after = model.prepare(replace(cond, audio=replace(cond.audio, rest=rest), mode=mode))
    changed = (after.audio[1][0].unflatten(0, (2, 4)) != before).flatten(2).any(-1).any(0)
    assert changed.tolist() == [False, False, True, True]


@torch.no_grad()
def test_outside_the_face_the_first_layer_hears_nothing() -> None:
    model, cond = random_model(replace(SMALL, layers=1, refiner=None)), conditioning(SMALL)
    x, sigma = noisy(cond)
    face_mask = torch.zeros(2, 2, 3)
    face_mask[:, 0, 1] = 1
    silent = model(x, sigma, replace(cond, audio=None))
    out = model(x, sigma, replace(cond, face_mask=face_mask))
    changed = (out != silent).flatten(0, 2).any(0)
    inside = face_mask[0].repeat_interleave(2, 0).repeat_interleave(2, 1) > 0
    assert torch.equal(changed, inside)
