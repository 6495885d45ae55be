"""umT5 and CLIP as Wan calls them, with tiny random models and a tokenizer of twelve words."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from talkingmachines.encoders import embeddings
from talkingmachines.encoders.embeddings import Embeddings
from talkingmachines.encoders.loading import for_a_moment
from talkingmachines.encoders.picture import clip_pixels, embed_picture
from talkingmachines.encoders.text import clean_prompt, embed_prompts, embed_tokens
from talkingmachines.errors import CheckpointError, MissingPackageError

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
WORDS = ["<pad>", "</s>", "<unk>", "a", "woman", "man", "speaks", "sings", "to", "the", "camera", "calmly"]
LENGTH = 12


def text_model() -> Any:
    torch.manual_seed(0)
    config = transformers.UMT5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, dropout_rate=0.0
    )
    model = transformers.UMT5EncoderModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {word: index for index, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def picture_model() -> Any:
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    return transformers.CLIPVisionModel(config).eval()


def test_parameters_of_the_full_size() -> None:
    """docs/full-size.md computes memory and disk from these. The configs are those of umT5-xxl and CLIP ViT-H/14."""
    umt5 = transformers.UMT5Config(
        vocab_size=256_384, d_model=4096, d_ff=10_240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    clip = transformers.CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14
    )
    with torch.device("meta"):
        models = transformers.UMT5EncoderModel(umt5), transformers.CLIPVisionModel(clip)
    # 4 bytes each: the total_size of the text encoder's index, in diffusers' folders of Wan2.1, is 22,723,641,344.
    assert [sum(each.numel() for each in model.parameters()) for model in models] == [5_680_910_336, 630_766_080]


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def test_a_prompt_is_embedded_alone_and_padded_with_zeros() -> None:
    """Padding and a neighbour in the batch change nothing: as the prompt's own tokens and no others."""
    model, words = text_model(), tokenizer()
    prompts = ["a woman speaks", "the man sings to the camera calmly"]
    made = embed_prompts(model, words, prompts, LENGTH)
    assert made.shape == (2, LENGTH, 16)
    for row, prompt in zip(made, prompts, strict=True):
        ids = words(prompt, return_tensors="pt").input_ids
        assert ids[0, -1] == 1, "the end of the prompt is a token too"
        with torch.no_grad():
            alone = model(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=1e-5)
        assert not row[len(alone) :].any()


def test_what_stands_at_padded_places_does_not_matter() -> None:
    model = text_model()
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    made = embed_tokens(model, torch.tensor([[3, 4, 1, 0, 0]]), mask)
    other = embed_tokens(model, torch.tensor([[3, 4, 1, 7, 9]]), mask)
    torch.testing.assert_close(made, other, atol=1e-6, rtol=1e-6)


def test_long_prompts_are_cut() -> None:
    made = embed_prompts(text_model(), tokenizer(), ["woman " * 50], LENGTH)
    assert made.shape == (1, LENGTH, 16) and made[0].any(-1).all()


def test_prompts_are_cleaned_as_wan_does() -> None:
    assert clean_prompt("  a \n woman &amp;amp; a\tman ") == "a woman & a man"


def test_picture_as_clip_wants_it() -> None:
    """Bicubic (a = -0.75) over the whole picture, no filter; computed here by hand for one pixel."""
    pixels = picture()
    made = clip_pixels(pixels, 28)
    assert made.shape == (1, 3, 28, 28)

    def weights(fraction: float) -> np.ndarray:
        a, distances = -0.75, np.abs(np.arange(-1, 3) - fraction)
        near = (a + 2) * distances**3 - (a + 3) * distances**2 + 1
        far = a * distances**3 - 5 * a * distances**2 + 8 * a * distances - 4 * a
        return np.where(distances <= 1, near, far)

    y, x = 10, 7
    source_y, source_x = (y + 0.5) * 40 / 28 - 0.5, (x + 0.5) * 56 / 28 - 0.5
    top, left = int(source_y), int(source_x)
    patch = pixels[top - 1 : top + 3, left - 1 : left + 3] / 255
    value = np.einsum("i,j,ijc->c", weights(source_y - top), weights(source_x - left), patch)
    wanted = (value - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    np.testing.assert_allclose(made[0, :, y, x], wanted, atol=1e-4)


def test_picture_tokens_are_what_the_last_layer_sees() -> None:
    model = picture_model()
    made = embed_picture(model, picture())
    assert made.shape == (1, 1 + 4, 16)
    seen = []
    model.encoder.layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(pixel_values=clip_pixels(picture(), 28))
    assert torch.equal(made, seen[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint in diffusers' layout."""
    text_model().save_pretrained(tmp_path / "text_encoder")
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    picture_model().save_pretrained(tmp_path / "image_encoder")
    return tmp_path


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are loaded, as they are."""
    names = []
    real = embeddings.for_a_moment

    def watched(name: str, *rest: Any) -> Any:
        names.append(name)
        return real(name, *rest)

    monkeypatch.setattr(embeddings, "for_a_moment", watched)
    return names


def test_prompts_are_embedded_once(folder: Path, loaded: list[str]) -> None:
    made = Embeddings(folder, CPU, torch.float32, LENGTH)
    first = made.prompts(["a woman speaks", "a man sings", "a woman  speaks"])
    torch.testing.assert_close(
        first, embed_prompts(text_model(), tokenizer(), ["a woman speaks", "a man sings", "a woman speaks"], LENGTH)
    )
    assert torch.equal(made.prompts(["a man sings"])[0], first[1])
    assert loaded == ["UMT5EncoderModel"]
    made.prompts(["a man sings", "the camera"])
    assert loaded == ["UMT5EncoderModel"] * 2


def test_pictures_are_embedded_once(folder: Path, loaded: list[str]) -> None:
    made = Embeddings(folder, CPU)
    first = made.picture(picture())
    torch.testing.assert_close(first, embed_picture(picture_model(), picture()))
    assert torch.equal(made.picture(picture().copy()), first)
    assert loaded == ["CLIPVisionModel"]
    assert not torch.equal(made.picture(picture(1)), first)
    made.picture(picture().reshape(56, 40, 3))
    assert loaded == ["CLIPVisionModel"] * 3


def test_only_the_latest_are_remembered(folder: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_KEPT", 2)
    made = Embeddings(folder, CPU)
    for seed in (0, 1, 0, 2, 0):
        made.picture(picture(seed))
    assert len(loaded) == 3
    made.picture(picture(1))
    assert len(loaded) == 4


def test_a_model_is_freed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import weakref

    kept = []
    real = embeddings.embed_picture
    monkeypatch.setattr(
        embeddings, "embed_picture", lambda model, pixels: kept.append(weakref.ref(model)) or real(model, pixels)
    )
    Embeddings(folder, CPU).picture(picture())
    gc.collect()
    assert kept and kept[0]() is None


def test_its_memory_is_given_back_while_the_caller_still_has_it(folder: Path) -> None:
    """As `with ... as model` has, until its function returns: what is still in use cannot go back to the GPU."""
    for name, part in (("UMT5EncoderModel", "text_encoder"), ("CLIPVisionModel", "image_encoder")):
        with for_a_moment(name, folder, part, CPU, torch.float32) as model:
            assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
        assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="image_encoder holds no CLIPVisionModel"):
        Embeddings(tmp_path, CPU).picture(picture())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackageError, match="pip install"):
        Embeddings(tmp_path, CPU).picture(picture())


@pytest.mark.parametrize("part", ["text_encoder", "image_encoder"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"half"), "get it again"),
        (lambda folder: (folder / "model.safetensors").unlink(), "get it again"),
        (lambda folder: (folder / "config.json").write_text("{"), "get it again"),
        (lambda folder: drop(folder, "layer_norm1.weight", "layer_norm.weight"), r"lacks .*layer_norm.*get it again"),
    ],
    ids=["cut short", "no weights", "no config", "a tensor less"],
)
def test_half_a_download(folder: Path, part: str, damage: Any, words: str) -> None:
    """transformers would fill what is missing with random values, and go on."""
    damage(folder / part)
    made = Embeddings(folder, CPU, torch.float32, LENGTH)
    with pytest.raises(CheckpointError, match=f"{part} holds no .*{words}") as raised:
        made.prompts(["a man"]) if part == "text_encoder" else made.picture(picture())
    assert "\n" not in str(raised.value)


def drop(folder: Path, *endings: str) -> None:
    """The first tensor that ends so."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors[next(name for name in sorted(tensors) if name.endswith(endings))]
    save_file(tensors, file, {"format": "pt"})


def test_weights_of_another_model(folder: Path) -> None:
    (folder / "text_encoder" / "model.safetensors").unlink()
    shutil.copy(folder / "image_encoder" / "model.safetensors", folder / "text_encoder")
    with pytest.raises(CheckpointError, match="text_encoder holds no UMT5EncoderModel: it lacks"):
        Embeddings(folder, CPU, torch.float32, LENGTH).prompts(["a man"])


def test_names_as_they_are_published(folder: Path) -> None:
    """Files of earlier versions of transformers call the tensors of CLIP otherwise."""
    file = folder / "image_encoder" / "model.safetensors"
    tensors = load_file(file)
    save_file(
        {f"vision_model.{name.removeprefix('vision_model.')}": tensors[name] for name in tensors},
        file,
        {"format": "pt"},
    )
    made = Embeddings(folder, CPU).picture(picture())
    torch.testing.assert_close(made, embed_picture(picture_model(), picture()))
