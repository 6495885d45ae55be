"""A store of utterances of one split, so that machines that train need no synthesiser."""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from talkingmachines.data.synthetic.speech import SPLITS, Utterance, choose_voice, synthesise, text_for
from talkingmachines.data.synthetic.visemes import SYMBOLS, Phone
from talkingmachines.errors import ConfigError, MediaError
from talkingmachines.media.files import replacing


@dataclass(frozen=True)
class SpeechBank:
    """split: "train" or "heldout"; utterances: kept as int16 samples in the file."""

    split: str
    utterances: tuple[Utterance, ...]

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"unknown split {self.split!r}: use one of {', '.join(SPLITS)}")
        if not self.utterances:
            raise ConfigError("a speech bank needs at least one utterance: build it with count >= 1")

    def __len__(self) -> int:
        return len(self.utterances)

    def of_voice(self, voice: str) -> list[Utterance]:
        """The utterances of one voice, in order."""
        return self._voices.get(voice, [])

    @cached_property
    def _voices(self) -> dict[str, list[Utterance]]:
        spoken: dict[str, list[Utterance]] = {}
        for utterance in self.utterances:
            spoken.setdefault(utterance.voice, []).append(utterance)
        return spoken

    @classmethod
    def build(
        cls,
        split: str,
        count: int,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
        workers: int = 0,
    ) -> "SpeechBank":
        """Synthesises count utterances; progress is called with (done, count) after each.

        workers: processes that do it, beside this one; 0 does it here.
        """
        utterances = []
        with ExitStack() as stack:
            run: Callable[..., Iterable[Utterance]] = map
            if workers:
                # A forked child would hang in what the voices' libraries had locked.
                run = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"))).map
            for utterance in run(partial(_utterance, split, seed), range(count)):
                utterances.append(utterance)
                if progress is not None:
                    progress(len(utterances), count)
        return cls(split, tuple(utterances))

    def save(self, path: Path) -> None:
        """Writes one .npz, whole or not at all."""
        spoken = self.utterances
        phones = [phone for utterance in spoken for phone in utterance.phones]
        notes = {"split": self.split, "voices": [u.voice for u in spoken], "texts": [u.text for u in spoken]}
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                samples=np.concatenate([_to_int16(u.samples) for u in spoken]),
                lengths=np.array([len(u.samples) for u in spoken]),
                symbols=np.array([SYMBOLS.index(p.symbol) for p in phones], np.uint8),
                times=np.array([(p.start, p.end) for p in phones], np.float64).reshape(-1, 2),
                phone_counts=np.array([len(u.phones) for u in spoken]),
                notes=np.array(json.dumps(notes)),
            )

    @classmethod
    def load(cls, path: Path) -> "SpeechBank":
        """Raises MediaError when the file is missing or is no speech bank."""
        try:
            with np.load(path) as stored:
                fields = {name: stored[name] for name in stored.files}
            notes = json.loads(str(fields["notes"]))
            samples = np.split(fields["samples"], np.cumsum(fields["lengths"])[:-1])
            bounds = np.cumsum(fields["phone_counts"])[:-1]
            symbols, times = np.split(fields["symbols"], bounds), np.split(fields["times"], bounds)
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise MediaError(f"{path} is no speech bank ({error}): build one with SpeechBank.build") from error
        utterances = tuple(
            Utterance(
                samples[i].astype(np.float32) / 32767,
                tuple(Phone(SYMBOLS[s], float(a), float(b)) for s, (a, b) in zip(symbols[i], times[i], strict=True)),
                voice,
                text,
            )
            for i, (voice, text) in enumerate(zip(notes["voices"], notes["texts"], strict=True))
        )
        return cls(notes["split"], utterances)


def origin() -> str:
    """What tells speech from any that is made otherwise: a digest of the sources. The voices' versions are pinned."""
    digest = hashlib.sha256()
    for source in ("bank", "sentences", "sound", "speech", "visemes", "voices_espeak", "voices_piper"):
        digest.update(files("talkingmachines.data.synthetic").joinpath(f"{source}.py").read_bytes())
    return digest.hexdigest()[:12]


def _utterance(split: str, seed: int, index: int) -> Utterance:
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    voice = choose_voice(split, rng)
    text = text_for(voice, int(rng.integers(2**31)), split)
    return synthesise(text, voice, rng)


def _to_int16(samples: np.ndarray) -> np.ndarray:
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
