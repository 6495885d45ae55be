"""What is evaluated: held-out clips, chosen by a seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.clip import Clip, make_clip
from talkingmachines.data.synthetic.draw import draw
from talkingmachines.data.synthetic.pose import POSE_FIELDS, Pose
from talkingmachines.errors import ConfigError

CHARACTERS = 64
"""Held-out characters 0 .. 63: those that speak, and those that a frame is told from."""

LISTENING, RECORDED = 20, 26
"""The first part of those who listen, and of those who speak with recordings: the same however many speak."""


@dataclass(frozen=True)
class EvalConfig:
    """How many clips of how many frames each (1 + 4n for those of the autoencoder), and how long a recording is.

    elsewhere_clips, toon_clips: of the clips of speech, how many are made again from a picture with the face somewhere
    else, and with a simple character.
    """

    vae_clips: int = 16
    vae_frames: int = 49
    speaking_clips: int = 20
    speaking_frames: int = 81
    elsewhere_clips: int = 12
    toon_clips: int = 12
    listening_clips: int = 6
    listening_frames: int = 121
    recording_seconds: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.vae_clips, self.speaking_clips, self.listening_clips)
        frames = (self.vae_frames, self.speaking_frames, self.listening_frames)
        if min(counts) < 1 or min(frames) < 9 or self.recording_seconds < 1:
            raise ConfigError(f"an evaluation needs clips (got {counts}) of at least 9 frames (got {frames}) and 1 s")
        if self.vae_frames % 4 != 1:
            raise ConfigError(f"vae_frames must be 1 + 4n, got {self.vae_frames}")


def vae_clips(bank: SpeechBank, config: EvalConfig) -> list[Clip]:
    """Clips of any kind, of any held-out character."""
    return _chosen(bank, config, config.vae_clips, config.vae_frames, 1, lambda clip: True)


def speaking_clips(bank: SpeechBank, config: EvalConfig) -> list[Clip]:
    """Clips that are mostly speech, each of another of the CHARACTERS, to 64 of them."""
    mouth = POSE_FIELDS.index("mouth_open")

    def speaks(clip: Clip) -> bool:
        return bool(clip.speaking.mean() >= 0.6 and clip.track[:, mouth].std() > 0.08)

    chosen = _chosen(bank, config, config.speaking_clips, config.speaking_frames, 2, speaks)
    return [replace(clip, character_seed=cast_of(config, index)) for index, clip in enumerate(chosen)]


def listening_clips(bank: SpeechBank, config: EvalConfig) -> list[Clip]:
    """Clips without a word, each of another of the CHARACTERS; beside more than 20 of speech, some of theirs."""
    chosen = _chosen(
        bank, config, config.listening_clips, config.listening_frames, 3, lambda clip: not clip.speaking.any()
    )
    return [replace(clip, character_seed=cast_of(config, LISTENING + index)) for index, clip in enumerate(chosen)]


def cast_of(config: EvalConfig, part: int) -> int:
    """The character (0 .. 63) who plays a part, another one for each of 64."""
    return int(np.random.default_rng([config.seed, 23]).permutation(CHARACTERS)[part % CHARACTERS])


def portraits(size: int) -> np.ndarray:
    """[CHARACTERS, size, size, 3] uint8: each of the held-out characters at rest."""
    return np.stack([draw(sample_character(seed), Pose(), size) for seed in range(CHARACTERS)])


def _chosen(
    bank: SpeechBank, config: EvalConfig, count: int, frames: int, kind: int, wanted: Callable[[Clip], bool]
) -> list[Clip]:
    """The first `count` clips that are wanted, from seeds that no other kind uses.

    Raises ConfigError for a bank that is too small, or not of held-out speech.
    """

    def candidates() -> Iterator[Clip]:
        for index in range(200 * count):
            clip = make_clip(100_000_000 * kind + 100_000 * config.seed + index, "heldout", frames, bank)
            if wanted(clip):
                yield clip

    found = [clip for clip, _ in zip(candidates(), range(count), strict=False)]
    if len(found) < count:
        raise ConfigError(f"the speech bank gives only {len(found)} of {count} clips; build one with more utterances")
    return found
