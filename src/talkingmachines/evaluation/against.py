"""The student against the teacher that it was distilled from, on the same held-out clips."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.evaluation.clips import EvalConfig
from talkingmachines.evaluation.evaluate import Models, evaluate
from talkingmachines.evaluation.reader import FaceReader
from talkingmachines.framing.cut import Framing

TEACHER_STEPS = 30
"""Denoising steps of the teacher, with the guidance of its preset."""


class ManySteps(Models, Protocol):
    """What evaluates as a teacher."""

    def framing(self, image: np.ndarray) -> Framing: ...
    def generate(self, image: np.ndarray, speech: np.ndarray, *, seed: int, steps: int) -> np.ndarray: ...


class _AtSteps:
    """A teacher that always takes so many steps."""

    def __init__(self, teacher: ManySteps, steps: int) -> None:
        self.teacher, self.steps = teacher, steps
        self.size, self.vae, self.device = teacher.size, teacher.vae, teacher.device
        self.framing = teacher.framing

    def generate(self, image: np.ndarray, speech: np.ndarray, *, seed: int) -> np.ndarray:
        return self.teacher.generate(image, speech, seed=seed, steps=self.steps)


def against_teacher(
    student: dict[str, Any],
    teacher: ManySteps,
    bank: SpeechBank,
    progress: Callable[[int, int], None] | None = None,
    clips: EvalConfig | None = None,
    *,
    reader: FaceReader | None = None,
    steps: int = TEACHER_STEPS,
) -> dict[str, Any]:
    """Runs the teacher on the drawn clips that the student was measured on, and compares: see `compare`.

    student: the student's figures, from `evaluate` with the same bank and clips. Errors as of `evaluate`.
    """
    # Both have one autoencoder and cut pictures alike, which the student's figures tell of: a single clip of the former
    # is the least there can be.
    config = replace(clips or EvalConfig(), vae_clips=1, elsewhere_clips=0, toon_clips=0)
    figures = evaluate(_AtSteps(teacher, steps), bank, progress, config, recordings=(), reader=reader)
    return compare(student, figures) | {"steps": steps, "seconds": figures["seconds"]}


def compare(student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:
    """The student's figures over the teacher's, both from `evaluate`; None where the teacher's is 0.

    lips_r, identity (likeness), top1, motion (energy in all clips) and motion_listening; teacher: its own figures. All
    are of clips with a drawn truth: the teacher makes no recordings.
    """
    pairs = {
        "lips_r": ("lips", "r"),
        "identity": ("identity", "drawn_likeness"),
        "top1": ("identity", "drawn_top1"),
        "motion": ("motion", "energy"),
        "motion_listening": ("motion", "listening"),
    }
    ratios = {
        name: student[group][key] / teacher[group][key] if teacher[group][key] else None
        for name, (group, key) in pairs.items()
    }
    own = {name: teacher[group][key] for name, (group, key) in pairs.items()}
    return {**ratios, "teacher": own, "clips": student["lips"]["clips"] + student["motion"]["clips"]}
