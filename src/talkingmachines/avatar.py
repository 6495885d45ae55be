"""A character that speaks, live: the student that makes it so, and the ways to use it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from talkingmachines.audio.alignment import FRAMES_PER_LATENT, num_frames, num_latents
from talkingmachines.audio.samples import check_samples
from talkingmachines.dit.fp8 import check_fp8, quantise_fp8
from talkingmachines.dit.model import DiT
from talkingmachines.dit.weights import unfilled
from talkingmachines.encoders.encoders import PROMPT, Encoders, load_encoders
from talkingmachines.errors import CheckpointError, ConfigError, MediaError
from talkingmachines.framing.cut import Fit, Framing, fit_centre
from talkingmachines.media.face import Box, find_face
from talkingmachines.media.image import check_picture
from talkingmachines.memory import check_memory
from talkingmachines.placement.pipeline import stream_frames
from talkingmachines.precision import choose_device, fast_dtype, multiply_in, weights_dtype
from talkingmachines.presets import Preset
from talkingmachines.streaming.engine import Call, Engine
from talkingmachines.streaming.features import LogMelStream, MakeFeatures, SpeechStream
from talkingmachines.streaming.pacing import LiveCall
from talkingmachines.streaming.session import Session
from talkingmachines.streaming.trusted import trusted_dtype
from talkingmachines.types import FPS
from talkingmachines.vae.build import build_vae
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.taehv import TAEHV, TinyWanVAE, read_taehv
from talkingmachines.vae.wan import WanVAE
from talkingmachines.weights import load_features, load_fit, load_weights, read_preset, weights_folder

Progress = Callable[[int, int], None]

LARGEST = 4
"""Times that a video may be larger than what the models make, each way: so large, two cores make 26 frames a second."""

log = logging.getLogger(__name__)


class Avatar:
    """A preset's student, loaded. Holds weights and nothing that changes; all its sessions share them.

    engine: for those who run several calls in one batch, or denoise and decode at the same time.
    """

    fps = FPS

    def __init__(
        self,
        spec: Preset,
        vae: CausalVAE | WanVAE | TinyWanVAE,
        student: DiT,
        device: torch.device,
        dtype: torch.dtype | None = None,
        *,
        encoders: Encoders | None = None,
        features: MakeFeatures | None = None,
        shape: tuple[int, int] | None = None,
        fit: Fit | None = None,
        vae_device: torch.device | None = None,
        compile: bool = False,
    ) -> None:
        """encoders: for presets with text, picture tokens and encoded speech. features: for presets with hearing and
        gestures of their own, see weights.load_features. shape: height and width of the video in
        pixels, the preset's unless given. fit: see weights.load_fit; the largest centred part unless given.
        vae_device: the autoencoder's; `device` unless given. dtype, compile: see Engine.

        Raises ConfigError for encoders that are missing or do not fit, and for a shape that does not divide.
        """
        self.preset = spec
        self.device = device
        self.shape = shape or (spec.size, spec.size)
        self._fit = fit or partial(fit_centre, size=self.shape)
        self.encoders = encoders
        _check_encoders(spec, encoders)
        self.vae = vae.to(vae_device or device).eval().requires_grad_(False)
        self.student = student.to(device).eval().requires_grad_(False)
        self.engine = Engine(
            self.student,
            self.vae,
            spec.chunk,
            self.shape,
            device,
            spec.sampling.face_box,
            dtype,
            features=_make_features(spec, encoders, features),
            keeps_detail=spec.keeps_detail,
            enlarge=self.shape[0] // made_shape(spec, self.shape)[0],
            compile=compile,
        )
        self.student.multiply_in(self.engine.dtype)
        multiply_in(self.vae, self.engine.dtype)

    @property
    def size(self) -> int:
        """Height and width of the preset's video in pixels."""
        return self.preset.size

    @property
    def chunk_frames(self) -> int:
        """Video frames of every chunk but the first."""
        return FRAMES_PER_LATENT * self.preset.chunk.frames

    def fit(self, image: np.ndarray) -> np.ndarray:
        """The part of a picture [H, W, 3] uint8 RGB that a call shows, [height, width, 3]; see `framing`."""
        return self.framing(image).shown

    def framing(self, image: np.ndarray) -> Framing:
        """What is made of a picture [H, W, 3] uint8 RGB: the part in which the face is where the preset has learned to
        have it, for those that have learned with one place alone, in a video of their own size, and if it is found; or
        else the largest in the middle. Raises MediaError for a picture that is none.
        """
        check_picture(image)
        return self._fit(image)

    def session(self, image: np.ndarray, seed: int = 0, *, face_box: Box | None = None) -> Session:
        """A call with the character in `image` [H, W, 3] uint8 RGB of any size, cut by `fit`.

        face_box: x0, y0, x1, y1, where the call listens, in fractions of the picture as it is cut. Unless given it is
        that of the face in the picture, for presets that look for it and if it is found, or else the preset's. The log
        says which.

        Raises MediaError for a picture that is none; ConfigError for a box that is empty or reaches out of the picture,
        and for any other than its own where the preset has learned with that alone.
        """
        return Session(self.engine, self._open(image, seed, face_box))

    def live(self, image: np.ndarray, seed: int = 0, *, face_box: Box | None = None) -> LiveCall:
        """A session in real time: while nothing is said, the character listens by itself. Options as of `session`."""
        return LiveCall(self.session(image, seed, face_box=face_box), self.chunk_frames)

    def generate(
        self,
        image: np.ndarray,
        speech: np.ndarray,
        *,
        seed: int = 0,
        face_box: Box | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """A clip of the character in `image` saying `speech`.

        image, face_box: see `session`; speech: float32 [n], mono 16 kHz, cut to [-1, 1]. progress(done, total) counts
        chunks.
        Returns [T, height, width, 3] uint8, T the fewest frames at 25 fps that last as long as the speech.
        Raises as `session`, and MediaError for speech that is empty or not finite.
        """
        return np.concatenate(
            list(self.stream_generate(image, speech, seed=seed, face_box=face_box, progress=progress))
        )

    def stream_generate(
        self,
        image: np.ndarray,
        speech: np.ndarray,
        *,
        seed: int = 0,
        face_box: Box | None = None,
        progress: Progress | None = None,
    ) -> Iterator[np.ndarray]:
        """As `generate`, but yields the clip chunk by chunk as it is made, in constant memory."""
        check_samples(speech)
        if not len(speech):
            raise MediaError("speech must have at least one sample")
        call = self._open(image, seed, face_box)
        left = num_frames(len(speech))
        total = -(-num_latents(left) // self.preset.chunk.frames)
        with closing(stream_frames(self.engine, [call], [[speech]])) as chunks:
            for done, [block] in enumerate(chunks, start=1):
                yield block[:left]
                left -= len(block)
                if progress:
                    progress(done, total)

    def _open(self, image: np.ndarray, seed: int, face_box: Box | None) -> Call:
        framing = self.framing(image)
        box = self._face(framing.pixels, face_box)
        text, picture = self.encoders.tell(framing.pixels) if self.encoders else (None, None)
        return self.engine.open(framing.pixels, seed, box, view=framing.view, text=text, picture=picture)

    def _face(self, fitted: np.ndarray, given: Box | None) -> Box:
        """Where a call with that picture listens, said in the log where there is a choice."""
        box = None if given is None else self.preset.check_box(given)
        if not self.preset.finds_face:
            return self.engine.face_box
        if box:
            whose = "given"
        elif found := find_face(fitted):
            box, whose = found, "found in the picture"
        else:
            box, whose = self.engine.face_box, "the preset's"
        log.info("face box %.2f,%.2f,%.2f,%.2f: %s", *box, whose)
        return box


def load(
    name_or_path: str = "pocket",
    *,
    device: str = "auto",
    vae_device: str | None = None,
    dtype: torch.dtype | None = None,
    encoders: str | Path | None = None,
    speech_encoder: str | Path | None = None,
    prompt: str | None = None,
    shape: tuple[int, int] | None = None,
    tiny_decoder: str | Path | None = None,
    steps: int | None = None,
    fp8: bool = False,
    compile: bool = False,
) -> Avatar:
    """An Avatar from a preset's name or a folder of weights. compile: see Engine. dtype: what the models compute in;
    unless given bfloat16 where the device is fast at it, and, on a processor, found right (see streaming/trusted.py).
    vae_device: the autoencoder's, so that a second GPU decodes while the first denoises; the same unless given.

    For the large presets: encoders, a folder or a name on the hub with `text_encoder`, `tokenizer` and `image_encoder`
    (`encoders` in the folder of weights unless given); speech_encoder, one with wav2vec2 (`speech_encoder` there);
    prompt, what every call is told, a usual one unless given; tiny_decoder, a file of `taew2_1`, which is faster than
    Wan's own decoder and less exact. For any: shape, height and width of the video in pixels; steps, of denoising a
    chunk, the preset's unless given; fp8, linear layers in eight bits.

    Raises ConfigError for an unknown name and for settings that cannot work here, CheckpointError for weights that are
    missing, damaged or foreign, MissingPackageError.
    """
    if dtype not in (None, torch.bfloat16, torch.float32):
        raise ConfigError(f"dtype is torch.bfloat16 or torch.float32, or left out, got {dtype!r}")
    folder, place = weights_folder(name_or_path), choose_device(device)
    vae_place, dtype = beside(place, vae_device, dtype)
    spec = in_steps(read_preset(folder, "student"), steps)
    made = made_shape(spec, shape or (spec.size, spec.size))
    _check_told(spec, encoders=encoders, speech_encoder=speech_encoder, prompt=prompt)
    if fp8:
        check_fp8(place)
    check_memory(spec, place, made, fp8, dtype)
    # The small models before the encoders, which take minutes: so what is wrong with them is said at once.
    kept = weights_dtype(place, dtype)
    vae = build_vae(spec.vae)
    whole = with_tiny_decoder(narrowed(vae, kept), partial(read_taehv, Path(tiny_decoder)) if tiny_decoder else None)
    load_weights(folder, "vae", vae)
    told = None
    if spec.dit.text:
        source, speech = encoders or folder / "encoders", speech_encoder or folder / "encoders" / "speech_encoder"
        told = load_encoders(source, speech, place, spec.dit.text.length, PROMPT if prompt is None else prompt)
        _check_encoders(spec, told)
        _check_tokens(spec, told)
    student = unfilled(spec.dit, kept, place)
    load_weights(folder, "student", student)
    if fp8:
        errors = quantise_fp8(student)
        log.info("fp8: a layer is off by %.1f%% at most, a pass by %.1f%%", 100 * errors.layer, 100 * errors.velocity)
    features, fit = load_features(folder, spec), load_fit(folder, spec, shape or (spec.size, spec.size))
    if dtype is None and place.type == "cpu" and isinstance(vae, CausalVAE):
        dtype = trusted_dtype(student, vae, spec.chunk.frames, made)
    return Avatar(
        spec,
        whole,
        student,
        place,
        dtype,
        encoders=told,
        features=features,
        shape=shape,
        fit=fit,
        vae_device=vae_place,
        compile=compile,
    )


def in_steps(spec: Preset, steps: int | None) -> Preset:
    """The preset with chunks of so many denoising steps, its own number unless given. Raises ConfigError."""
    return spec if steps is None else replace(spec, chunk=replace(spec.chunk, steps=steps))


def beside(
    place: torch.device, vae_device: str | None, dtype: torch.dtype | None
) -> tuple[torch.device, torch.dtype | None]:
    """The autoencoder's device, the transformer's unless given, and what both can compute in. Raises ConfigError."""
    if vae_device is None:
        return place, dtype
    try:
        other = choose_device(vae_device)
    except ConfigError as error:
        raise ConfigError(f"for the autoencoder, {error}; or leave its device out") from error
    if other.type != place.type:
        raise ConfigError(f"the autoencoder cannot be on {other} with the transformer on {place}; leave its device out")
    slow = torch.float32 in (fast_dtype(place), fast_dtype(other))
    return other, torch.float32 if slow and dtype is None else dtype


def narrowed(vae: CausalVAE | WanVAE, dtype: torch.dtype) -> CausalVAE | WanVAE:
    """Wan's autoencoder with its parameters in `dtype`, in place; the latents' mean and deviation stay exact."""
    if isinstance(vae, WanVAE):
        for parameter in vae.parameters():
            parameter.data = parameter.data.to(dtype)
    return vae


def with_tiny_decoder(vae: CausalVAE | WanVAE, tiny: Callable[[], TAEHV] | None) -> CausalVAE | WanVAE | TinyWanVAE:
    """tiny: makes the decoder. Raises ConfigError if the autoencoder is not Wan's, whose latents it knows."""
    if tiny is None:
        return vae
    if not isinstance(vae, WanVAE):
        raise ConfigError("the tiny decoder is for presets with Wan's autoencoder; leave it out")
    return TinyWanVAE(vae, tiny())


def _make_features(spec: Preset, encoders: Encoders | None, features: MakeFeatures | None) -> MakeFeatures:
    if (spec.hearing is None) != (features is None):
        raise ConfigError(f"{spec.name} {'needs' if spec.hearing else 'takes no'} features of its own; see load")
    return features or (SpeechStream.maker(encoders.speech) if encoders else LogMelStream.make)


def made_shape(spec: Preset, shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels of what the models make for a video of `shape`: the same, or their own size where the
    detail of a larger video is put back. Raises ConfigError for a shape that cannot be made.
    """
    if spec.keeps_detail:
        if shape not in [(times * spec.size, times * spec.size) for times in range(1, LARGEST + 1)]:
            raise ConfigError(
                f"{spec.name} makes video of {spec.size} x {spec.size} pixels, or 2 to {LARGEST} times as large each "
                f"way, such as {2 * spec.size}x{2 * spec.size}, got {shape[1]} wide and {shape[0]} high"
            )
        return spec.size, spec.size
    step = spec.vae.spatial_stride * spec.dit.patch[1]
    if min(shape) < step or any(side % step for side in shape):
        raise ConfigError(
            f"{spec.name} makes video whose sides are multiples of {step}, got {shape[1]} wide and {shape[0]} high"
        )
    return shape


def _check_told(spec: Preset, **options: str | Path | None) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given and spec.dit.text is None:
        raise ConfigError(f"{spec.name} has no encoders and is told of no prompt; leave out {' and '.join(given)}")


def _check_encoders(spec: Preset, encoders: Encoders | None) -> None:
    audio = spec.dit.audio
    if encoders is None:
        if spec.dit.text or (audio and audio.feature_layers > 1):
            raise ConfigError(f"{spec.name} needs encoders of text, pictures and speech; see load")
        return
    found = encoders.speech.layers, encoders.speech.width
    if audio and found != (audio.feature_layers, audio.feature_dim):
        raise CheckpointError(
            f"{spec.name} hears {audio.feature_layers} layers of {audio.feature_dim}, this speech encoder has "
            f"{found[0]} of {found[1]}: take wav2vec2-base"
        )


def _check_tokens(spec: Preset, encoders: Encoders) -> None:
    """Tried on a picture of nothing. Raises CheckpointError for tokens of encoders that the student was not told by."""
    text, image = spec.dit.text, spec.dit.image
    assert text and image
    wanted = {"text_encoder": (text.length, text.dim), "image_encoder": (image.tokens, image.dim)}
    for (part, size), tokens in zip(wanted.items(), encoders.tell(np.zeros((8, 8, 3), np.uint8)), strict=True):
        if tokens.shape[1:] != size:
            raise CheckpointError(
                f"{spec.name} is told {size[0]} tokens of {size[1]} by its {part}, this one makes {tokens.shape[1]} of "
                f"{tokens.shape[2]}: take the encoders of Wan2.1's image-to-video model"
            )
