"""When what is made and played: the clock is a number, and chunks take as long as the test says."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from live_parts import AHEAD, CHUNK, OPENING, PERIOD, picture, read, speech

from talkingmachines.streaming.slots import JITTER, MAX_LAG, LiveFrame, Make, Pacer
from talkingmachines.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME


@dataclass
class Line:
    """One call, played event by event. took: seconds of chunk n; decoding: seconds more, in which the next one may be
    begun; at: what happens when."""

    took: Callable[[int], float] = lambda chunk: 0.2
    at: list[tuple[float, Callable[[Pacer], None]]] = field(default_factory=list)
    pacer: Pacer = field(default_factory=lambda: Pacer(OPENING, CHUNK, AHEAD))
    played: list[tuple[float, LiveFrame]] = field(default_factory=list)
    made: list[tuple[float, Make]] = field(default_factory=list)
    decoding: Callable[[int], float] | None = None

    def run(self, seconds: float, looks: Callable[[float], bool] = lambda now: True) -> "Line":
        """looks: whether the one who takes the frames is there."""
        now, denoised, done, events = 0.0, math.inf, [math.inf], sorted(self.at, key=lambda event: event[0])
        while now <= seconds:
            if now >= denoised:
                self.pacer.denoised(now)
                denoised = math.inf
            if now >= done[0]:
                chunk = len(self.made) - len(done) + 1
                count = len(self.made[chunk][1].samples) // SAMPLES_PER_FRAME
                self.pacer.made(np.stack([picture(chunk, frame) for frame in range(count)]), now)
                done.pop(0)
            while events and events[0][0] <= now:
                events.pop(0)[1](self.pacer)
            while looks(now) and (frame := self.pacer.to_play(now)):
                self.played.append((now, frame))
            if make := self.pacer.to_make(now):
                chunk = len(self.made)
                self.made.append((now, make))
                there = now + self.took(chunk)
                if self.decoding:
                    denoised = there
                    there = max([there, *done[:-1]]) + self.decoding(chunk)
                done.insert(-1, there)
            coming = [
                denoised,
                done[0],
                self.pacer.play_at(),
                self.pacer.begin_at(),
                events[0][0] if events else None,
                now + 0.1,
            ]
            now = min(time for time in coming if time is not None and time > now)
        self.check()
        return self

    def check(self) -> None:
        """What holds whatever happens."""
        start = self.played[0][0]
        pts = [frame.pts for _, frame in self.played]
        assert pts == sorted(set(pts)) and all(round(at * FPS) / FPS == at for at in pts)
        for now, frame in self.played:
            assert now >= start + frame.pts - self.pacer.counts.hurried / 2 / FPS - 1e-5, "before its time"
            if frame.pixels is None:
                assert frame.spoken, "nothing at all"
                continue
            chunk, index = read(frame.pixels)
            samples = self.made[chunk][1].samples
            own = samples[index * SAMPLES_PER_FRAME : (index + 1) * SAMPLES_PER_FRAME]
            np.testing.assert_array_equal(frame.speech, own, "another frame's sound")

    @property
    def sound(self) -> np.ndarray:
        return np.concatenate([frame.speech for _, frame in self.played])

    @property
    def lags(self) -> list[float]:
        """Of every frame, seconds after its time."""
        return [now - self.played[0][0] - frame.pts for now, frame in self.played]

    @property
    def gaps(self) -> list[float]:
        """Seconds of silence before each frame of speech but the first, for who plays one after the other."""
        found, until = [], math.inf
        for now, frame in self.played:
            if frame.spoken:
                found.append(max(0.0, now - until))
                until = (now if until == math.inf else max(now, until)) + 1 / FPS
        return found[1:]

    def heard_at(self, sample: float) -> float:
        """When the frame left that has this sample."""
        return next(now for now, frame in self.played if np.isclose(frame.speech, sample, atol=1e-9).any())


def push(samples: np.ndarray) -> Callable[[Pacer], None]:
    return lambda pacer: pacer.push(samples)


def microphone(seconds: float, start: float, late: Callable[[int], float] = lambda piece: 0.0) -> list:
    """Pieces of 20 ms, each when its last sample was spoken, or later."""
    pieces = np.split(speech(seconds), round(seconds * 50))
    arrive = [start + (index + 1) / 50 + late(index) for index in range(len(pieces))]
    # One that comes late holds up those after it.
    return [(float(time), push(piece)) for time, piece in zip(np.maximum.accumulate(arrive), pieces, strict=True)]


@pytest.mark.parametrize("took", [0.01, 0.1, 0.3])
def test_without_speech_it_listens_by_itself(took: float) -> None:
    line = Line(lambda chunk: took).run(20)
    assert [frame.pts for _, frame in line.played] == [slot / FPS for slot in range(len(line.played))]
    assert max(line.lags) < 1e-5 and not line.sound.any()
    assert len(line.played) > (20 - took) * FPS - 2
    assert (line.pacer.counts.late, line.pacer.counts.skipped) == (0, 0)
    # No chunk is begun before it has to be.
    begun = [time for time, _ in line.made[2:]]
    assert np.diff(begun) == pytest.approx(PERIOD)


def test_speech_comes_out_whole_and_in_order() -> None:
    said = speech(7.3)
    cuts = np.sort(np.random.default_rng(0).integers(0, len(said), 40))
    events = [(0.5 + 0.01 * index, push(piece)) for index, piece in enumerate(np.split(said, cuts))]
    line = Line(at=[*events, (1.0, Pacer.end_segment)]).run(20)
    sound = line.sound
    np.testing.assert_array_equal(sound[sound != 0], said)
    first, last = np.flatnonzero(sound)[[0, -1]]
    assert last - first == len(said) - 1, "a gap within the speech"
    assert line.pacer.counts.late == 0


@pytest.mark.parametrize("onset", np.arange(3, 3.5, 0.05).tolist())
def test_an_answer_does_not_wait_for_all_of_the_silence_before_it(onset: float) -> None:
    took, said = 0.2, speech(2.4)
    line = Line(lambda chunk: took, [(onset, push(said)), (onset + 1, Pacer.end_segment)]).run(8)
    assert line.heard_at(said[0]) - onset < 2 * took + 3 / FPS, "a chunk that is at hand, and its own"
    assert max(line.gaps) < 1e-5 and line.pacer.counts.hurried and not line.pacer.counts.late
    np.testing.assert_array_equal(line.sound[line.sound != 0], said)


@pytest.mark.parametrize("onset", np.arange(1, 1.5, 0.07).tolist())
def test_a_microphone_is_heard_soon_and_without_a_gap(onset: float) -> None:
    took = 0.2
    line = Line(lambda chunk: took, microphone(3, onset)).run(8)
    sound = line.sound
    first, last = np.flatnonzero(sound)[[0, -1]]
    assert last - first == 3 * SAMPLE_RATE - 1
    for said in speech(3)[::1600]:
        spoken = onset + said * 2**22 / SAMPLE_RATE
        assert line.heard_at(said) - spoken < PERIOD + took + JITTER + 3 / FPS
    assert line.pacer.counts.late == 0


@pytest.mark.parametrize("onset", np.arange(1, 1.5, 0.05).tolist())
def test_a_microphone_that_stutters_a_little_leaves_no_gap(onset: float) -> None:
    delays = np.random.default_rng(0).uniform(0, JITTER - 0.021, 200)
    sound = Line(lambda chunk: 0.2, microphone(3, onset, lambda piece: delays[piece])).run(8).sound
    first, last = np.flatnonzero(sound)[[0, -1]]
    assert last - first == 3 * SAMPLE_RATE - 1


def test_a_click_is_heard_though_nothing_follows() -> None:
    line = Line(at=[(1.0, push(speech(0.01)))]).run(4)
    assert np.count_nonzero(line.sound) == 160


def test_a_chunk_is_told_what_waits_to_be_said_after_it() -> None:
    words = speech(3.0)
    made = [
        make
        for _, make in Line(
            at=[(0.5, lambda pacer: pacer.push(words[:20_001])), (0.7, lambda pacer: pacer.push(words[20_001:]))]
        )
        .run(6)
        .made
    ]
    said = np.concatenate([make.samples for make in made])
    begins = np.flatnonzero(said)[0]
    ends = np.cumsum([len(make.samples) for make in made])
    for end, make in zip(ends, made, strict=True):
        assert len(make.coming) <= AHEAD
        assert np.array_equal(make.coming, said[max(end, begins) : max(end, begins) + len(make.coming)])
        if begins < end < begins + len(words) - AHEAD:
            assert len(make.coming) == AHEAD


def test_little_is_made_in_advance() -> None:
    line = Line(at=[(0.0, push(speech(30)))]).run(20)
    for now, _ in line.made[2:]:
        started = line.played[0][0]
        begun_by_then = sum(len(make.samples) for time, make in line.made if time <= now) / SAMPLE_RATE
        assert begun_by_then - (now - started) <= 2 * PERIOD + 1e-5
    assert line.pacer.counts.late == 0


@pytest.mark.parametrize("stall", [0.6, 1.2, 3.0])
def test_not_much_more_is_made_in_advance_after_a_stall(stall: float) -> None:
    line, waiting = Line(lambda chunk: stall if chunk == 20 else 0.15, decoding=lambda chunk: 0.05), []

    def looks(now: float) -> bool:
        waiting.append(sum(len(make.samples) for _, make in line.made) // SAMPLES_PER_FRAME - len(line.played))
        return True

    line.run(30, looks)
    assert max(waiting) < 3 * CHUNK


def test_the_end_of_a_segment_does_not_wait_for_more() -> None:
    begun = {}
    for ended in (True, False):
        end = [(1.0, Pacer.end_segment)] if ended else []
        line = Line(lambda chunk: 0.05, [(1.0, push(speech(0.2))), *end]).run(4)
        begun[ended] = next(time for time, make in line.made if make.samples.any())
        assert np.count_nonzero(line.sound) == 3200
    assert begun[True] < begun[False]
    # At its beginning, where there is no more to come that would have to follow.
    [chunk] = [make.samples for _, make in Line(at=[(1.0, push(speech(0.2))), (1.0, Pacer.end_segment)]).run(4).made
               if make.samples.any()]  # fmt: skip
    assert chunk[:3200].all() and not chunk[3200:].any()


def test_segments_ended_before_the_call_has_begun() -> None:
    pacer = Pacer(OPENING, CHUNK)
    said = [speech(0.5), speech(0.1, 100_000)]
    for one in said:
        pacer.push(one)
        pacer.end_segment()
        pacer.end_segment()
    line = Line(pacer=pacer).run(4)
    sound = line.sound
    np.testing.assert_array_equal(sound[sound != 0], np.concatenate(said))
    assert [bool(make.samples.any()) for _, make in line.made[:4]] == [True, True, True, False]


@pytest.mark.parametrize("at", np.arange(2, 2.6, 0.09).tolist())
@pytest.mark.parametrize("took", [0.05, 0.3])
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_shuts_the_mouth_soon(at: float, took: float, times: int) -> None:
    line = Line(lambda chunk: took, [(0.5, push(speech(10))), *[(at, Pacer.interrupt)] * times]).run(6)
    after = [(now, frame) for now, frame in line.played if now > at + 1e-5]
    assert not any(frame.speech.any() for _, frame in after), "speech after the interrupt"
    cut = next(index for index, (_, make) in enumerate(line.made) if make.after_cut)
    # Of the chunks made for that speech no frame is played, not even its picture alone.
    assert all(read(frame.pixels)[0] >= cut for _, frame in after)
    assert after[0][0] - at <= 2 * took + 1 / FPS + 1e-5
    assert [make.after_cut for _, make in line.made].count(True) == 1
    counts = line.pacer.counts
    assert counts.late == 0 and counts.dropped > 0
    assert counts.skipped <= 2 * took * FPS + 1
    assert max(line.lags[-50:]) < 1e-5


def test_an_interrupt_while_listening_changes_nothing() -> None:
    plain = Line().run(6)
    line = Line(at=[(2.03, Pacer.interrupt), (3.0, Pacer.interrupt)]).run(6)
    assert [now for now, _ in plain.played] == [now for now, _ in line.played]
    assert line.pacer.counts.dropped == 0


def test_speech_after_an_interrupt_is_new() -> None:
    new = speech(2, 500_000)
    events = [(0.5, push(speech(10))), (2.1, Pacer.interrupt), (2.1, push(new)), (2.2, Pacer.end_segment)]
    line = Line(at=events).run(8)
    sound = line.sound
    sound = sound[sound != 0]
    np.testing.assert_array_equal(sound[-len(new) :], new)
    np.testing.assert_array_equal(sound[: -len(new)], speech(10)[: len(sound) - len(new)])
    assert 1 < (len(sound) - len(new)) / SAMPLE_RATE < 1.6


def test_a_slow_chunk_is_late_and_caught_up_with() -> None:
    slow = 6
    line = Line(lambda chunk: 1.1 if chunk == slow else 0.2, [(0.0, push(speech(12))), (0.0, Pacer.end_segment)])
    line.run(15)
    sound = line.sound
    np.testing.assert_array_equal(sound[sound != 0], speech(12))
    counts = line.pacer.counts
    assert counts.skipped == 0 and counts.late == sum(lag > 1e-5 for lag in line.lags) > 0
    late = np.flatnonzero(np.array(line.lags) > 1e-5)
    # All in one place, and on time again within three chunks.
    assert late[-1] - late[0] < 3 * CHUNK
    assert max(line.lags) < 0.7


def test_after_a_standstill_nothing_hurries() -> None:
    line = Line(lambda chunk: 6.0 if chunk == 6 else 0.2, [(0.0, push(speech(12)))]).run(25)
    sound = line.sound
    assert len(sound[sound != 0]) == 12 * SAMPLE_RATE
    assert max(line.lags) < MAX_LAG and line.pacer.counts.skipped > 4 * FPS
    gaps = np.diff([now for now, _ in line.played])
    assert (gaps < 1 / FPS - 1e-5).sum() == 0


@pytest.mark.parametrize("speaks", [False, True])
def test_a_machine_that_is_too_slow(speaks: bool) -> None:
    """A chunk takes longer than it plays: pictures are lost, but each comes with its sound, and order is kept."""
    line = Line(lambda chunk: 0.6, [(0.0, push(speech(30)))] if speaks else []).run(30)
    assert max(line.lags) < MAX_LAG + PERIOD
    assert line.pacer.counts.skipped > 0
    sound = line.sound
    np.testing.assert_array_equal(sound, speech(30)[: len(sound)] if speaks else 0 * sound)


@pytest.mark.parametrize("took", [0.5, 0.7, 1.1])
@pytest.mark.parametrize("comes", ["at once", "as it is spoken"])
@pytest.mark.parametrize("decoding", [None, lambda chunk: 0.3])
def test_a_machine_that_is_too_slow_goes_on_speaking(
    took: float, comes: str, decoding: Callable[[int], float] | None
) -> None:
    said = [(0.0, push(speech(20)))] if comes == "at once" else microphone(20, 1.0)
    line = Line(lambda chunk: took, said, decoding=decoding).run(40)
    sound = line.sound
    np.testing.assert_array_equal(sound[sound != 0], speech(20))
    # It takes three chunks to know how slow it is; and the last is waited for.
    assert sum(line.gaps[3 * CHUNK : -2 * CHUNK]) < 0.1
    shown = [frame for _, frame in line.played if frame.spoken and frame.pixels is not None]
    assert len(shown) > 0.8 * 20 * FPS * PERIOD / took
    assert line.pacer.counts.skipped >= sum(frame.pixels is None for _, frame in line.played) > 0


@pytest.mark.parametrize("speaks", [False, True])
def test_a_chunk_is_begun_while_the_last_one_is_decoded(speaks: bool) -> None:
    """Both together take longer than it plays, neither does."""
    said = [(0.0, push(speech(18)))] if speaks else []
    line = Line(lambda chunk: 0.4, said, decoding=lambda chunk: 0.2).run(20)
    late = np.flatnonzero(np.array(line.lags) > 1e-5)
    assert not len(late) or late[-1] < 6 * CHUNK, "only until it knows how slow it is"
    assert line.pacer.counts.skipped < CHUNK and len(line.played) > 19 * FPS
    # Not before it has to be, where there is no speech.
    begun = np.array([time for time, _ in line.made[12:]])
    assert speaks or np.diff(begun) == pytest.approx(PERIOD)


@pytest.mark.parametrize("speaks", [False, True])
def test_a_chunk_that_was_quick_makes_the_next_one_no_later(speaks: bool) -> None:
    """With some a little slower than they play, and some a little quicker."""
    took = np.random.default_rng(0).uniform(-0.08, 0.08, 200)
    said = [(0.0, push(speech(58)))] if speaks else []
    line = Line(lambda chunk: 0.25, said, decoding=lambda chunk: 0.25 + took[chunk]).run(60)
    assert sum(lag > 1e-5 for lag in line.lags) < CHUNK
    assert line.pacer.counts.skipped < CHUNK and len(line.played) > 59 * FPS


@pytest.mark.parametrize("at", np.arange(4, 4.5, 0.03).tolist())
def test_an_interrupt_while_two_chunks_are_made(at: float) -> None:
    line = Line(lambda chunk: 0.4, [(0.5, push(speech(10))), (at, Pacer.interrupt)], decoding=lambda chunk: 0.2).run(9)
    after = [(now, frame) for now, frame in line.played if now > at + 1e-5]
    assert not any(frame.speech.any() for _, frame in after), "speech after the interrupt"
    cut = next(index for index, (_, make) in enumerate(line.made) if make.after_cut)
    assert all(read(frame.pixels)[0] >= cut for _, frame in after)
    assert after[0][0] - at <= 2 * 0.4 + 0.2 + 1 / FPS + 1e-5
    assert max(line.lags[-50:]) < 1e-5


def test_a_first_chunk_that_waits_for_who_takes_it() -> None:
    line = Line(at=[(2.0, push(speech(3)))]).run(8, looks=lambda now: now >= 5)
    taken = line.played[0][0]
    assert taken >= 5 and line.played[0][1].pts == 0.0
    assert [time for time, _ in line.made[:2]] == [0.0, taken], "nothing is made in advance but the first chunk"
    assert not line.pacer.counts.late and not line.pacer.counts.skipped
    assert max(line.lags) < 1e-5


@pytest.mark.parametrize("taken", [0.0, 0.5, 3.0])
def test_where_chunks_take_long_the_second_does_not_wait_for_the_first_frame(taken: float) -> None:
    line = Line(lambda chunk: 0.25, decoding=lambda chunk: 0.25).run(10, looks=lambda now: now >= taken)
    assert [time for time, _ in line.made[:2]] == [0.0, 0.25] and line.made[2][0] > max(taken, 0.5)
    assert not line.pacer.counts.late and not line.pacer.counts.skipped


def test_an_interrupt_does_not_wait_for_what_is_decoded_in_vain() -> None:
    pacer = Pacer(OPENING, CHUNK)
    pacer.push(speech(5))
    for now in (0.0, 0.4):
        assert (make := pacer.to_make(now)) and make.samples.all()
        pacer.denoised(now)
        if not now:
            pacer.made(np.stack([picture(0, frame) for frame in range(OPENING)]), 0.4)
            assert pacer.to_play(0.4)
    pacer.interrupt()
    assert (silence := pacer.to_make(0.42)) and silence.after_cut and not silence.samples.any()


@pytest.mark.parametrize("decoding", [None, lambda chunk: 0.1])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_late_or_lost(seed: int, decoding: Callable[[int], float] | None) -> None:
    """Audio that stutters and gets lost, chunks of any speed, interrupts: `check` holds, and nothing is said twice."""
    rng = np.random.default_rng(seed)
    delays = rng.exponential(0.03, 1000) * (rng.random(1000) < 0.2)
    events = microphone(12, 0.3, lambda piece: delays[piece])
    events = [event for event in events if rng.random() > 0.05]
    if seed % 2:
        events += [(time, Pacer.interrupt) for time in rng.uniform(1, 12, 3)]
        events += [(time, Pacer.end_segment) for time in rng.uniform(1, 12, 3)]
    slow = rng.exponential(0.1, 1000)
    line = Line(lambda chunk: 0.15 + slow[chunk], events, decoding=decoding).run(30)
    sound = line.sound
    said = sound[sound != 0]
    assert (np.diff(said) > 0).all()
    if not seed % 2:
        assert len(said) == 320 * len(events)
    assert max(line.lags[-25:]) < 1e-5


def test_nobody_looks() -> None:
    """Frames that nobody takes are kept, few of them; nothing is made until some are taken."""
    line = Line()
    line.run(20, looks=lambda now: not 3 < now < 15)
    begun = [time for time, _ in line.made]
    assert not any(4 < time < 15 for time in begun)
    assert max(line.lags[-25:]) < 1e-5


# The call around it, with threads.
