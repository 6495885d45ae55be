"""When to make which chunk, and when to play which frame: a call in real time, decided without waiting.

Time is cut into slots of 1 / 25 s, counted from the moment at which the first frame is there and taken. A frame has a
slot, and takes the 640 samples of sound that belong to it along, so picture and sound cannot drift apart.

A chunk is begun as late as it can be so that its frames are there in time, and earlier only if there is speech for all
of it. So little is made in advance: at most a chunk besides the one that plays, or two where a chunk takes longer than
it plays. If it would be late otherwise, it is begun while the last one is decoded. Speech that comes as it is spoken
leaves between L and L + one chunk after it came, where L is how long a chunk takes to make, and MARGIN and JITTER.
Speech that comes faster, from its second chunk on, waits only for what is before it. While speech waits to begin, the
frames of silence before it go by twice as fast, as far as its first chunk can be there then: nobody sees it, and an
answer comes up to a third of a second sooner.

Where a chunk takes longer than it plays, pictures are lost and speech goes on: what would have to wait for the next
chunk is played without a picture, and the chunk is made for what comes after.
"""

import math
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from talkingmachines.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

MARGIN = 1 / FPS
"""Seconds by which a chunk is to be there before its first frame is due."""

MAX_LAG = 1.0
"""Seconds that speech may come late and be caught up with. After more, time has been lost and nothing hurries."""

JITTER = 0.04
"""Seconds of speech that are kept back when it begins: what comes later by no more than that leaves no gap in it."""

FORGET = 0.1
"""The part of an earlier, slower chunk's time that is forgotten with every chunk."""

LATELY = 3
"""Chunks in a row that must be slow before the machine counts as too slow; fewer are caught up with."""

_TICK = 1e-6
"""Seconds; times that differ by less are the same."""


@dataclass(frozen=True)
class LiveFrame:
    """A picture and its sound. pixels: [H, W, 3] uint8, None: no picture was made; pts: seconds, its slot / 25; speech:
    float32 [640].

    spoken: how many of these samples were pushed, the others are silence; cuts: interruptions until it was played.
    """

    pixels: np.ndarray | None
    pts: float
    speech: np.ndarray
    spoken: int
    cuts: int


@dataclass(frozen=True)
class Make:
    """A chunk to make now. samples: float32 [640 * T]; coming: [n], speech that waits to come after it; after_cut: what
    was said before it has been interrupted."""

    samples: np.ndarray
    coming: np.ndarray
    after_cut: bool


@dataclass
class LiveCounts:
    """What happened so far. frames: played; late: those among them that were not there at their time; dropped:
    made for speech that was interrupted; skipped: slots that had no picture; hurried: frames of silence that took half
    a slot; filled: samples of silence put where speech was lacking.
    """

    frames: int = 0
    late: int = 0
    dropped: int = 0
    skipped: int = 0
    hurried: int = 0
    filled: int = 0


@dataclass(frozen=True)
class _Ready:
    """A frame to be played. spoken: as in LiveFrame; chunk: which it belongs to."""

    slot: int
    pixels: np.ndarray | None
    speech: np.ndarray
    spoken: int
    chunk: int


@dataclass
class _Making:
    """A chunk being made. samples: [640 * T]; spoken: [T], as in LiveFrame; since: when it was begun; before: samples
    [640] of frames that go before it without a picture; denoised: it is only being decoded."""

    samples: np.ndarray
    spoken: np.ndarray
    since: float
    before: list[tuple[np.ndarray, int]]
    denoised: bool = False
    dropped: bool = False


class _Speech:
    """Samples that wait, each known to be pushed or filled in."""

    def __init__(self) -> None:
        self.count = 0
        self._pieces: deque[tuple[np.ndarray, bool]] = deque()

    def add(self, samples: np.ndarray, spoken: bool) -> None:
        if len(samples):
            self._pieces.append((samples, spoken))
            self.count += len(samples)

    def take(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` samples, and bool [count]: whether they were pushed."""
        samples, spoken, done = np.zeros(count, np.float32), np.zeros(count, bool), 0
        while done < count:
            piece, pushed = self._pieces.popleft()
            used = piece[: count - done]
            samples[done : done + len(used)], spoken[done : done + len(used)] = used, pushed
            done += len(used)
            if len(used) < len(piece):
                self._pieces.appendleft((piece[len(used) :], pushed))
        self.count -= count
        return samples, spoken

    def peek(self, count: int) -> np.ndarray:
        """The first `count` samples, or all."""
        pieces, there = [np.zeros(0, np.float32)], 0
        for piece, _ in self._pieces:
            if there >= count:
                break
            pieces.append(piece[: count - there])
            there += len(pieces[-1])
        return np.concatenate(pieces)

    def clear(self) -> None:
        self._pieces.clear()
        self.count = 0


@dataclass
class Pacer:
    """The decisions of one live call. It knows no clock, thread or model: `now` is always handed in, in seconds.

    opening, chunk: video frames of the first chunk and of every other; ahead: samples after it that a chunk can hear.
    """

    opening: int
    chunk: int
    ahead: int = 0
    counts: LiveCounts = field(default_factory=LiveCounts)

    def __post_init__(self) -> None:
        self._speech = _Speech()
        self._ready: deque[_Ready] = deque()
        self._making: deque[_Making] = deque()  # at most two, the first of them denoised
        self._made = 0  # chunks
        self._began: float | None = None  # the time of slot 0
        self._slot = 0  # of the next frame to be made
        self._took = 0.0  # seconds to make a chunk, of the slow ones
        self._lately: deque[float] = deque(maxlen=LATELY)  # seconds that the last chunks took
        self._until = 0.0  # when speech ends for who plays what was taken, one frame after the other
        self._flowing = False  # the last sample of the last chunk was pushed
        self._kept = 0  # samples kept back when speech began
        self._cut = False  # there was an interrupt since the last chunk was begun
        self._cuts = 0  # interrupts

    def push(self, samples: np.ndarray) -> None:
        """Speech that goes on where the last push ended: float32 [n]."""
        self._speech.add(samples, True)

    def end_segment(self) -> None:
        """No more speech is coming now: the last of it does not wait for its chunk to be full."""
        size = self._samples_wanted()
        while size < self._speech.count:
            size += self.chunk * SAMPLES_PER_FRAME
        if self._speech.count:
            missing = size - self._speech.count
            self._speech.add(np.zeros(missing, np.float32), False)
            self.counts.filled += missing

    def interrupt(self) -> None:
        """Drops all speech that was not played, and the frames that were made for it; harmless when repeated.

        Frames of silence stay. When all that was ready is dropped nothing plays until a new chunk has been made. That
        is begun at once, or when the one at hand is done.
        """
        self._speech.clear()
        self._flowing, self._cut = False, True
        self._cuts += 1
        for making in self._making:
            making.dropped |= bool(making.spoken.any())
            making.before.clear()
        if not self._ready:
            return
        kept: deque[_Ready] = deque()
        first, gone = self._ready[0].slot, -1
        for frame in self._ready:
            gone = frame.chunk if frame.spoken else gone
            if frame.chunk != gone:
                kept.append(replace(frame, slot=first + len(kept)))
        self.counts.dropped += len(self._ready) - len(kept)
        self._ready, self._slot = kept, first + len(kept)

    def to_play(self, now: float) -> LiveFrame | None:
        """The next frame if its time has come; it counts as played."""
        at = self.play_at()
        if at is None or now < at - _TICK:
            return None
        if self._began is None:
            self._began = now
        frame = self._ready.popleft()
        if not frame.spoken and self._hurries(now):
            self.counts.hurried += 1
        self.counts.frames += frame.pixels is not None
        self._until = (max(self._until, now) if frame.spoken else now) + 1 / FPS
        return LiveFrame(frame.pixels, frame.slot / FPS, frame.speech, frame.spoken, self._cuts)

    def to_make(self, now: float) -> Make | None:
        """The next chunk if it is time to begin it; `made` has to follow, and `denoised` may before it."""
        begin = self.begin_at()
        if begin is None or now < begin - _TICK:
            return None
        slow = self._flowing and len(self._lately) == LATELY
        before = self._without_pictures(now) if slow else []
        samples, spoken = self._next_chunk()
        self._making.append(_Making(samples, np.sum(spoken.reshape(-1, SAMPLES_PER_FRAME), axis=1), now, before))
        if len(self._making) == 1:
            self._show_nothing()
        self._flowing, after_cut, self._cut = bool(spoken[-1]), self._cut, False
        return Make(samples, self._speech.peek(self.ahead), after_cut)

    def denoised(self, now: float) -> None:
        """The chunk asked for last is only to be decoded: another may be begun."""
        self._making[-1].denoised = True
        if not self._made:  # a guess, until it is known: decoding takes about as long
            self._took = 2 * (now - self._making[-1].since)

    def made(self, frames: np.ndarray, now: float) -> None:
        """The first of the chunks asked for that was not there yet is: uint8 [T, H, W, 3]."""
        assert self._making and len(frames) == len(self._making[0].spoken), "not the chunk that was asked for"
        making = self._making.popleft()
        took = now - making.since
        self._took = max(took, self._took + FORGET * (took - self._took)) if self._made else took
        self._lately.append(took)
        self._made += 1
        if making.dropped:
            self.counts.dropped += len(frames)
        else:
            self._add(frames, making, now)
        if self._making:
            self._show_nothing()

    def _add(self, frames: np.ndarray, making: _Making, now: float) -> None:
        lag = now - self._due(self._slot) if self._began is not None else 0.0
        if lag > _TICK and (lag > MAX_LAG or not making.spoken.any()):
            # Nobody waits for silence that is late, and speech that is very late is not hurried through.
            skipped = math.ceil((lag - _TICK) * FPS)
            self._slot += skipped
            self.counts.skipped += skipped
        sound = making.samples.reshape(-1, SAMPLES_PER_FRAME)
        for pixels, speech, spoken in zip(frames, sound, making.spoken, strict=True):
            self.counts.late += self._began is not None and self._due(self._slot) < now - _TICK
            self._ready.append(_Ready(self._slot, pixels, speech, int(spoken), self._made))
            self._slot += 1

    def play_at(self) -> float | None:
        """When `to_play` has a frame next, as things are now; minus infinity: it has one, the first."""
        if not self._ready:
            return None
        return self._due(self._ready[0].slot) if self._began is not None else -math.inf

    def begin_at(self) -> float | None:
        """When `to_make` has a chunk next, as things are now; minus infinity: it has one."""
        if len(self._making) > 1 or (self._making and not self._making[0].denoised):
            return None
        if self._began is None:
            # A second one only if it would be late though the first is taken at once.
            there = (len(self._ready) + self._coming()) / FPS
            return -math.inf if not there or there < min(self._took + MARGIN, self.chunk / FPS) else None
        if not self._making and len(self._ready) < self.chunk and self._speech.count >= self._samples_wanted():
            return -math.inf
        coming = self._coming()
        in_time = self._due(self._slot + coming) - self._took - MARGIN
        return in_time if len(self._ready) + coming < 2 * self.chunk else None

    def _coming(self) -> int:
        """Frames that are being made and will be played."""
        return sum(len(making.spoken) for making in self._making if not making.dropped)

    def _hurries(self, now: float) -> bool:
        """Whether speech waits behind the frames of silence, and loses nothing if those are over sooner."""
        waits = self._speech.count >= self.chunk * SAMPLES_PER_FRAME
        if any(frame.spoken for frame in self._ready):
            return waits  # and so the next chunk need not wait for what is being said just now
        ahead, there = len(self._ready), now + self._took
        for making in self._making:
            there = making.since + self._took
            if making.spoken.any():
                waits = True
                break
            ahead, there = ahead + len(making.spoken), there + self._took
        return waits and now + ahead / FPS > there + MARGIN

    def _without_pictures(self, now: float) -> list[tuple[np.ndarray, int]]:
        """Of the speech that waits, what is due before a chunk that is begun now can be there; the chunk stays full.
        Samples [640] of each frame, and how many of them are spoken."""
        there = max(self._until, now) + (len(self._ready) + self._coming()) / FPS
        wanted = math.ceil((now + min(self._lately) - there - _TICK) * FPS)
        spare = (self._speech.count - self._samples_wanted()) // SAMPLES_PER_FRAME
        taken = [self._speech.take(SAMPLES_PER_FRAME) for _ in range(min(wanted, spare))]
        return [(speech, int(spoken.sum())) for speech, spoken in taken]

    def _show_nothing(self) -> None:
        """Plays what goes without pictures before the chunk that is there next."""
        for speech, spoken in self._making[0].before:
            self._ready.append(_Ready(self._slot, None, speech, spoken, self._made + 1))
            self._slot += 1
            self.counts.skipped += 1
        self._making[0].before.clear()

    def _next_chunk(self) -> tuple[np.ndarray, np.ndarray]:
        """Samples [640 * T] and bool [640 * T], whether they were pushed. What is missing is filled with silence."""
        wanted, there = self._samples_wanted(), self._speech.count
        begins = there < wanted and not self._flowing
        if begins:
            # Unless nothing has come since the last chunk, for which as much was kept back.
            self._kept = 0 if there == self._kept else min(there, round(JITTER * SAMPLE_RATE))
        samples, spoken = self._speech.take(min(wanted, there - self._kept * begins))
        missing = wanted - len(samples)
        self.counts.filled += missing
        # Speech that begins ends with its chunk, so that what is still to come of it follows without a gap.
        before, after = (missing, 0) if begins else (0, missing)
        return np.pad(samples, (before, after)), np.pad(spoken, (before, after))

    def _due(self, slot: int) -> float:
        assert self._began is not None
        return self._began + (slot - self.counts.hurried / 2) / FPS

    def _samples_wanted(self) -> int:
        """Of the next chunk to be begun."""
        begun = self._made + len(self._making)
        return (self.chunk if begun else self.opening) * SAMPLES_PER_FRAME
