"""Figures for Prometheus, and the same for the latency panel of the page."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from talkingmachines.server.calls import Call

PREFIX = "talkingmachines"
SECONDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.48, 0.6, 0.8, 1.0, 1.5, 2.0, 2.5, 4.0, 8.0)
OFFSETS = (-0.2, -0.1, -0.045, -0.02, 0.0, 0.02, 0.045, 0.1, 0.2)

REPORTED = {"fps": (0.0, 240.0), "av_offset": (-10.0, 10.0), "dropped": (0.0, 1e9)}
"""What a page reports of what it receives, and the values that can be true."""


class Metrics:
    """One server's figures. Counts of a call are read once a second; only their growth is added."""

    def __init__(self, max_calls: int) -> None:
        self.registry = CollectorRegistry()

        def made(kind: Any, name: str, words: str, labels: Sequence[str] = (), **more: Any) -> Any:
            return kind(f"{PREFIX}_{name}", words, labels, registry=self.registry, **more)

        self.calls = made(Gauge, "calls", "Calls that are going on.")
        made(Gauge, "calls_max", "Calls that are taken at the same time.").set(max_calls)
        self.started = made(Counter, "calls_started", "Calls that were connected.")
        self.busy = made(Counter, "calls_refused", "Callers who were told that all lines are busy.")
        self.errors = made(Counter, "errors", "What went wrong.", ["where"])
        for where in ("call", "voice", "upload", "signalling", "recording"):
            self.errors.labels(where)
        self.interruptions = made(Counter, "interruptions", "Times that a character was interrupted.")
        self.frames = made(Counter, "frames", "Pictures sent.")
        self.lost = made(Counter, "frames_lost", "Pictures not sent, or not in time.", ["how"])
        for how in ("late", "skipped", "dropped"):
            self.lost.labels(how)
        self.fps = made(Gauge, "fps", "Pictures a second sent in the last second, of the slowest call.")
        self.chunk = made(Histogram, "chunk_seconds", "Making one chunk of pictures.", buckets=SECONDS)
        self.chunk_p95 = made(Gauge, "chunk_p95_seconds", "p95 of the last chunks, of the slowest call.")
        self.first_frame = made(Histogram, "first_frame_seconds", "From the call to its picture.", buckets=SECONDS)
        self.turn = made(Histogram, "turn_seconds", "From the user's last word to the answer's first.", buckets=SECONDS)
        words = "A picture's departure minus that of its sound."
        self.av_offset = made(Histogram, "av_offset_seconds", words, buckets=OFFSETS)
        self.seen_fps = made(Gauge, "received_fps", "Pictures a second shown, of the slowest call, as pages report.")
        words = "Picture minus sound as played, as pages report."
        self.seen_offset = made(Histogram, "received_av_offset_seconds", words, buckets=OFFSETS)
        self.seen_dropped = made(Counter, "received_frames_dropped", "Pictures that browsers left out.")
        self._seen: dict[str, _Seen] = {}

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)

    def observe(self, call: "Call") -> None:
        """Adds what has happened in a call since the last time."""
        now, counts = _Seen.of(call), call.counts
        before = self._seen.get(call.id, _Seen())
        self._seen[call.id] = now
        self.frames.inc(now.frames - before.frames)
        for how in ("late", "skipped", "dropped"):
            self.lost.labels(how).inc(getattr(now, how) - getattr(before, how))
        self.interruptions.inc(now.interruptions - before.interruptions)
        self.errors.labels("voice").inc(now.errors - before.errors)
        if before.first_frame is None and now.first_frame is not None:
            self.first_frame.observe(now.first_frame)
        for spent in _latest(counts.turn_times, now.turns - before.turns):
            self.turn.observe(spent)
        for spent in _latest(call.chunks.latest, now.chunks - before.chunks):
            self.chunk.observe(spent)
        for offset in _latest(counts.av_offsets, 1 if now.frames > before.frames else 0):
            self.av_offset.observe(offset)
        now.rate = (now.frames - before.frames) / max(now.at - before.at, 1e-3) if before.at else 0.0
        now.reported, now.chunk_p95 = before.reported, percentile(call.chunks.latest, 95)
        self._gauges()

    def report(self, call: "Call", figures: dict[str, Any]) -> None:
        """What the caller's page says of what it receives; values that cannot be true are left out."""
        seen = self._seen.setdefault(call.id, _Seen.of(call))
        good = {}
        for name, (low, high) in REPORTED.items():
            value = figures.get(name)
            if isinstance(value, int | float) and low <= value <= high:
                good[name] = float(value)
        if "av_offset" in good:
            self.seen_offset.observe(good["av_offset"])
        self.seen_dropped.inc(max(0.0, good.get("dropped", 0.0) - seen.reported.get("dropped", 0.0)))
        seen.reported = seen.reported | good
        self._gauges()

    def forget(self, call: "Call") -> None:
        """A call has ended."""
        self._seen.pop(call.id, None)
        self._gauges()

    def of_call(self, call: "Call") -> dict[str, float | int | None]:
        """For the page's panel. Seconds; None: not known yet."""
        counts, seen = call.counts, self._seen.get(call.id)
        return {
            "first_frame": counts.first_frame,
            "turn": counts.turn_times[-1] if counts.turn_times else None,
            "turn_p95": percentile(counts.turn_times, 95),
            "chunk": percentile(call.chunks.latest, 50),
            "chunk_p95": percentile(call.chunks.latest, 95),
            "av_offset": percentile(counts.av_offsets, 50),
            "fps": seen.rate if seen else None,
            "late": counts.late,
            "skipped": counts.skipped,
            "dropped": counts.dropped,
        }

    def _gauges(self) -> None:
        calls = [seen for seen in self._seen.values() if seen.frames]
        self.fps.set(min((seen.rate for seen in calls), default=0.0))
        self.chunk_p95.set(max((seen.chunk_p95 or 0.0 for seen in calls), default=0.0))
        self.seen_fps.set(min((seen.reported["fps"] for seen in calls if "fps" in seen.reported), default=0.0))


class _Seen:
    """A call's counts at one moment."""

    def __init__(self) -> None:
        self.at = 0.0
        self.frames = self.late = self.skipped = self.dropped = 0
        self.interruptions = self.errors = self.turns = self.chunks = 0
        self.first_frame: float | None = None
        self.rate = 0.0
        self.chunk_p95: float | None = None
        self.reported: dict[str, float] = {}

    @classmethod
    def of(cls, call: "Call") -> "_Seen":
        seen, counts = cls(), call.counts
        seen.at, seen.frames, seen.first_frame = time.monotonic(), counts.frames, counts.first_frame
        seen.late, seen.skipped, seen.dropped = counts.late, counts.skipped, counts.dropped
        seen.interruptions, seen.errors, seen.turns = counts.interruptions, counts.errors, counts.turns
        seen.chunks = call.chunks.total
        return seen


def percentile(values: Sequence[float], share: float) -> float | None:
    """None of nothing."""
    kept = list(values)  # a copy: another thread may be adding to it
    return float(np.percentile(kept, share)) if kept else None


def _latest(values: Sequence[float], count: int) -> list[float]:
    return list(values)[-count:] if count > 0 else []
