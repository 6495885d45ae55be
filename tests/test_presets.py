"""The numbers of the presets."""

from dataclasses import replace

import pytest
import torch

from talkingmachines.data.synthetic.gestures import GESTURE_FIELDS
from talkingmachines.dit.model import MIN_SIGMA, DiT
from talkingmachines.dit.weights import AUDIO_LAYERS, IMAGE_LAYERS, is_part_of
from talkingmachines.errors import ConfigError
from talkingmachines.flow.schedule import sampling_sigmas
from talkingmachines.presets import PRESETS, pocket, preset, tiny, wan_1_3b, wan_14b
from talkingmachines.vae.wan_config import WanVAEConfig


def counts(name: str) -> dict[str, int]:
    """Parameters of a preset's DiT in all, of its audio layers and of its image layers."""
    with torch.device("meta"):
        parameters = dict(DiT(preset(name).dit).named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    parts = {"audio": AUDIO_LAYERS, "image": IMAGE_LAYERS}
    return {"all": total} | {
        part: sum(parameter.numel() for key, parameter in parameters.items() if is_part_of(key, layers))
        for part, layers in parts.items()
    }


def test_parameters_of_the_full_size() -> None:
    """docs/full-size.md computes memory and disk from these."""
    found = counts("wan_14b")
    assert found == {"all": 18_882_048_320, "audio": 2_487_169_536, "image": 2_105_977_600}
    layer = 2 * 5120 + 2 * (5120 + 1) * 5120 + (768 + 1) * 2 * 5120
    projection = (5 * 12 * 768 + 1) * 512 + (8 * 12 * 768 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * 32 * 768 + 2 * 768
    assert found["audio"] == 40 * layer + projection + 2 * 768


def test_parameters_of_the_small_one() -> None:
    found = counts("wan_1_3b")
    # Without its layers for sound and picture it is the text-to-video model, which has 1,418,996,800.
    assert found["all"] - found["audio"] - found["image"] - 20 * 4 * 1536 == 1_418_996_800
    assert found["all"] == 1_851_257_664


@pytest.mark.parametrize("spec", [wan_14b(), wan_1_3b()], ids=lambda spec: spec.name)
def test_few_steps_are_where_published_ones_are(spec) -> None:  # type: ignore[no-untyped-def]
    """lightx2v's wan_i2v_distill_4step_cfg.json: steps 1000, 750, 500, 250 of 1000, shifted by 5."""
    four = [5 * s / (1 + 4 * s) for s in (1, 0.75, 0.5, 0.25)]
    torch.testing.assert_close(replace(spec.chunk, steps=4).sigmas, torch.tensor(four))
    torch.testing.assert_close(spec.chunk.sigmas, torch.tensor(four[::2]))


@pytest.mark.parametrize("spec", [wan_14b(), wan_1_3b()], ids=lambda spec: spec.name)
def test_of_wan(spec) -> None:  # type: ignore[no-untyped-def]
    assert (spec.dit.in_channels, spec.dit.latent_channels, spec.dit.head_width) == (36, 16, 128)
    assert (spec.chunk.frames, spec.chunk.window, spec.size) == (3, 7, 512)
    assert isinstance(spec.vae, WanVAEConfig) and spec.dit.prediction == "velocity"
    # 3,072 queries a chunk, and as many keys for each of the three chunks it sees.
    assert (spec.size // spec.vae.spatial_stride // spec.dit.patch[1]) ** 2 * spec.chunk.frames == 3072


def test_names() -> None:
    assert all(make().name == name for name, make in PRESETS.items())
    with pytest.raises(ConfigError, match="wan_14b"):
        preset("wan_15b")


@pytest.mark.parametrize("make", [pocket, tiny])
def test_gestures_are_those_that_are_drawn(make) -> None:
    gestures = make().gestures
    assert gestures is not None and gestures.count == len(GESTURE_FIELDS)


@pytest.mark.parametrize("make", [pocket, tiny])
def test_a_sampler_ends_at_what_the_model_makes(make) -> None:  # type: ignore[no-untyped-def]
    """The teacher's clips, and the student, take these steps."""
    spec = make()
    for steps, shift in ((spec.sampling.steps, spec.sampling.shift), (spec.sampling.steps, spec.chunk.shift)):
        assert sampling_sigmas(steps, shift)[-2] >= MIN_SIGMA
    assert spec.chunk.sigmas[-1] >= MIN_SIGMA
