"""The figures that are shown, each with its aim."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """figures[group][name], how it is written, and the range that it is to lie in, both ends included.

    count: the name in the same group of how many it was measured on.
    """

    label: str
    group: str
    name: str
    form: str = "{:.3f}"
    low: float | None = None
    high: float | None = None
    count: str = "clips"

    @property
    def aim(self) -> str:
        """In words; empty without one."""
        low, high = (None if end is None else self.form.format(end) for end in (self.low, self.high))
        if low is None:
            return "" if high is None else f"at most {high}"
        return f"at least {low}" if high is None else f"{low} to {high}"

    def reached(self, value: float | None) -> bool | None:
        """None without an aim or a value."""
        if value is None or (self.low is None and self.high is None):
            return None
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def shown(self, figures: dict[str, Any]) -> str:
        """The value in words."""
        value = figures[self.group][self.name]
        return "not measured" if value is None else self.form.format(value)

    def measured_on(self, figures: dict[str, Any]) -> str:
        """As in "12 clips"."""
        return f"{figures[self.group][self.count]} {self.count.removeprefix('real_')}"


FIGURES = (
    Figure("autoencoder, PSNR", "vae", "psnr_db", "{:.1f} dB", low=34),
    Figure("autoencoder, error at latent borders over inside", "vae", "border_ratio", "{:.2f}", high=1),
    Figure("autoencoder, error at the picture's edge over beside", "vae", "edge_ratio", "{:.2f}"),
    Figure("lips, r with the truth", "lips", "r", low=0.85),
    Figure("lips, best lag in frames", "lips", "lag_frames", "{:+d}", -1, 1),
    Figure("lips, shut where they must be", "lips", "closed", "{:.1%}", low=0.9),
    Figure("lips, r with real recordings", "lips", "real_r", low=0.6, count="real_clips"),
    Figure("lips, r from pictures with the face elsewhere", "elsewhere", "r", low=0.8),
    Figure("lips of simple characters, r with the truth", "toons", "r"),
    Figure("the same character, nearest of 64", "identity", "top1", "{:.1%}", low=0.99, count="frames"),
    Figure("likeness of the face to its portrait, r", "identity", "likeness", count="frames"),
    Figure("background, sharpness over the picture's", "background", "sharpness", "{:.2f}"),
    Figure("background, PSNR to the picture", "background", "psnr_db", "{:.1f} dB"),
    Figure("motion while listening, over the truth's", "motion", "listening", "{:.2f}"),
    Figure("blinks a minute", "motion", "blinks_per_minute", "{:.1f}"),
    Figure("still pictures", "motion", "still_clips", "{:d}", high=0),
    Figure("lip r, over the teacher's", "against_teacher", "lips_r", low=0.95),
    Figure("likeness, over the teacher's", "against_teacher", "identity", low=0.99),
    Figure("nearest of 64, over the teacher's", "against_teacher", "top1", low=0.99),
    Figure("motion energy, over the teacher's", "against_teacher", "motion", "{:.2f}", 0.8, 1.2),
    Figure("sharpness, last minute to first", "long_run", "drift_sharpness", "{:+.1%}", -0.02, 0.02, "minutes"),
    Figure("colour, last minute to first", "long_run", "drift_colour", "{:+.1%}", -0.02, 0.02, "minutes"),
    Figure("likeness, last minute to first", "long_run", "drift_identity", "{:+.1%}", -0.02, 0.02, "minutes"),
    Figure("change where chunks meet over inside", "long_run", "border_ratio", "{:.2f}", high=1.2, count="minutes"),
    Figure("still minutes", "long_run", "still_minutes", "{:d}", high=0, count="minutes"),
)


def measured(figures: dict[str, Any]) -> list[Figure]:
    """Those of the groups that are there."""
    return [figure for figure in FIGURES if figure.group in figures]
