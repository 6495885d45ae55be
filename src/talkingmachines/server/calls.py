"""The calls that are going on: who may come in, what each one has, and that nothing of it is left when it ends."""

import asyncio
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from talkingmachines.conversation.counts import CallCounts
from talkingmachines.errors import TalkingMachinesError
from talkingmachines.server.logs import call_id
from talkingmachines.server.metrics import Metrics
from talkingmachines.server.pictures import Pictures
from talkingmachines.server.recording import HANGS, Recorder
from talkingmachines.server.recordings import Recordings
from talkingmachines.server.threads import on_a_thread
from talkingmachines.server.timing import ChunkTimes

log = logging.getLogger(__name__)

CONNECT = 30.0
"""Seconds that a place is kept for a caller who is not connected yet."""

LOST = 15.0
"""Seconds of silence on the line after which a caller is gone; until then they may come back into the same call."""

ENDING = 10.0
"""Seconds in which a call that ends is over, whatever of it hangs."""

FOR_RECORDING, FOR_LINE = 0.4, 0.1
"""Shares of ENDING at its end. When the first begins, the conversation of a call that is recorded has to be over; when
the second does, the recording, or the conversation where there is none."""

REMEMBERED = 256
"""Calls that have ended whose reason can still be asked for."""


class Busy(TalkingMachinesError):
    """All places are taken."""


class Foreign(TalkingMachinesError):
    """An offer that does not belong to the connection that a call has: sent again, or somebody else's."""


class Connection(Protocol):
    """What is needed of pipecat's SmallWebRTCConnection."""

    def is_connected(self) -> bool: ...

    async def disconnect(self) -> None: ...


class Signalling(Protocol):
    """Offers and answers of one call."""

    async def offer(self, offer: dict[str, Any], connected: Callable[[Any], Awaitable[None]]) -> dict[str, str]:
        """The answer to an offer (sdp, type, pc_id, restart_pc); `connected` is told of a new connection."""

    async def candidates(self, candidates: list[dict[str, Any]]) -> None:
        """The caller's addresses that have been found since."""


@dataclass(eq=False)
class Call:
    """One call. pixels: the picture of the character, [H, W, 3] uint8.

    pc_id: names the connection that the caller has now; answers to offers carry it. replaced: the one before, which a
    caller still names who never got the answer. connected: whether the line has ever stood. recorded: the names of its
    recordings. over_by: when it will be over, on the monotonic clock; infinite until it ends. finishing: cleans up.
    """

    id: str
    pixels: np.ndarray
    signalling: Signalling
    counts: CallCounts
    chunks: ChunkTimes = field(default_factory=ChunkTimes)
    heard_at: float = field(default_factory=time.monotonic)
    connected: bool = False
    connection: Connection | None = None
    pc_id: str | None = None
    replaced: str | None = None
    recorder: Recorder | None = None
    recorded: list[str] = field(default_factory=list)
    reason: str = ""
    over_by: float = math.inf
    task: "asyncio.Task[None] | None" = None
    finishing: "asyncio.Task[None] | None" = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    recording: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def ending(self) -> bool:
        return self.over_by < math.inf

    def left(self, kept: float = 0.0) -> float:
        """Seconds until it is over, less the share of ENDING that is kept for others."""
        return max(0.0, self.over_by - kept * ENDING - time.monotonic())


@dataclass(frozen=True)
class Ended:
    """What is remembered of a call. recorded: the names of its recordings, which can be fetched."""

    reason: str
    recorded: list[str]


MakeCall = Callable[[Any, Call], Awaitable[None]]
"""Runs a call over a connection until it is over; cancelled when the server ends it."""


class Calls:
    """All calls of a server. Every method runs on its event loop."""

    def __init__(
        self,
        make_call: MakeCall,
        make_signalling: Callable[[], Signalling],
        max_calls: int,
        metrics: Metrics,
        recordings: Recordings,
        pictures: Pictures,
    ) -> None:
        self._make_call, self._make_signalling = make_call, make_signalling
        self.max_calls, self.metrics, self.recordings, self.pictures = max_calls, metrics, recordings, pictures
        self.active: dict[str, Call] = {}
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._ends: set[asyncio.Task[None]] = set()
        self._closed = False

    def reserve(self, pixels: np.ndarray) -> Call:
        """A place for a caller who has CONNECT seconds to come. Raises Busy when there is none."""
        if self._closed:
            raise Busy("the server is being stopped; try again in a minute")
        if len(self.active) >= self.max_calls:
            self.metrics.busy.inc()
            raise Busy(f"all lines are busy: {self.max_calls} of {self.max_calls} are taken; please try again soon")
        identity = secrets.token_urlsafe(12)
        call = Call(identity, pixels, self._make_signalling(), CallCounts(call_id=identity[:8]))
        self.active[identity] = call
        self.metrics.calls.set(len(self.active))
        return call

    def ended(self, identity: str) -> Ended | None:
        """How a call has ended; None when it has not, or was never there."""
        return self._ended.get(identity)

    async def offer(self, call: Call, offer: dict[str, Any]) -> dict[str, str]:
        """Answers an offer of the caller: the first begins the call, later ones bring them back into it.

        Raises Foreign, and what signalling raises for an offer that is none.
        """
        async with call.lock:
            known = offer.get("pc_id")
            answer_was_lost = offer.get("restart_pc") is True and known is not None and known == call.replaced
            if known != call.pc_id and not answer_was_lost:
                raise Foreign("this offer does not belong to the connection that the call has")
            answer = await call.signalling.offer(offer, lambda connection: self._start(call, connection))
            call.replaced, call.pc_id, call.heard_at = known, answer.get("pc_id"), time.monotonic()
            return answer

    async def settled(self, call: Call) -> None:
        """Waits while it is ending."""
        if call.ending and call.task is not None:
            await asyncio.wait({call.task}, timeout=ENDING)

    async def end(self, call: Call, reason: str) -> None:
        """Ends a call, and returns when nothing is left of it. Harmless when repeated."""
        call.reason = call.reason or reason
        begins = not call.ending
        self._begin_to_end(call)
        if call.task is not None:
            if begins:  # a second cancellation would hit the cleaning up
                call.task.cancel()
            kept = FOR_RECORDING if call.recorder else FOR_LINE
            await asyncio.wait({call.task}, timeout=call.left(kept))
            if call.finishing is None and not call.task.done():
                log.error("call %s does not end; it is left behind", call.counts.call_id)
        await self._finish(call)  # a task that was cancelled before its first step has not

    async def close(self) -> None:
        """Ends all calls; no new ones are taken."""
        self._closed = True
        await asyncio.gather(*(self.end(call, "the server was stopped") for call in list(self.active.values())))

    async def watch(self, every: float = 1.0) -> None:
        """Ends calls whose caller never came or has gone, keeps the metrics and deletes old recordings and pictures;
        until it is cancelled."""
        await asyncio.gather(*(self._repeat(work, every) for work in (self._look_after, self._clean)))

    async def _repeat(self, work: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await work()
            except Exception:  # whatever is wrong with one call, the others are still watched
                log.exception("the calls could not be looked after")

    async def _look_after(self) -> None:
        """Once. Apart from `watch`, whose variables would keep the last call until there is another."""
        calls = list(self.active.values())
        for call in calls:
            self.metrics.observe(call)
        for call in calls:
            if not call.ending and (reason := self._gone(call)):
                task = asyncio.create_task(self.end(call, reason))  # which takes 10 s where a disk hangs
                self._ends.add(task)
                task.add_done_callback(self._ends.discard)
        self.pictures.clean([call.pixels for call in self.active.values()])

    async def _clean(self) -> None:
        """Apart from `_look_after`, which a disk that hangs must not hold up."""
        if self.recordings.passing:
            wanted = {name for call in self.active.values() for name in call.recorded}
            await on_a_thread(self.recordings.clean, wanted)

    async def record(self, call: Call, on: bool) -> str | None:
        """Starts or stops a recording; the name of the one that has been stopped, None when it had failed. One that has
        failed is begun anew. Nothing begins while the call is ending. Raises MediaError when the file is not to be had;
        where every call is recorded anyway, nobody waits for it."""
        async with call.recording:
            if not on:
                return await self._stop_recording(call)
            if call.recorder is not None and call.recorder.failure:
                await self._stop_recording(call)
            self._start_recording(call)
            recorder = call.recorder
        if recorder is not None and not self.recordings.always:
            await on_a_thread(recorder.wait_until_open)
        return None

    def _start_recording(self, call: Call) -> None:
        if call.recorder is None and not call.ending:
            call.recorder = self.recordings.start(call.counts.call_id)

    async def _stop_recording(self, call: Call) -> str | None:
        if call.recorder is None:
            return None
        recorder, call.recorder = call.recorder, None
        finished = await on_a_thread(self.recordings.finish, recorder, min(HANGS, call.left(FOR_LINE)))
        if finished:
            call.recorded.append(finished)
        return finished

    def _line_stands(self, call: Call) -> bool:
        """Whether it does now. A call is counted the first time."""
        if call.connection is None or not call.connection.is_connected():
            return False
        call.heard_at = time.monotonic()
        if not call.connected:
            call.connected = True
            self.metrics.started.inc()
        return True

    def _gone(self, call: Call) -> str:
        if self._line_stands(call):
            return ""
        silent = time.monotonic() - call.heard_at
        if not call.connected:
            return "the caller never came" if silent > CONNECT else ""
        return "the connection was lost" if silent > LOST else ""

    async def _start(self, call: Call, connection: Connection) -> None:
        if call.ending or call.task is not None:  # it is over, or about to be: who comes back has the connection before
            await connection.disconnect()
            return
        call.connection = connection
        call.task = asyncio.create_task(self._run(call), name=f"call {call.counts.call_id}")

    async def _run(self, call: Call) -> None:
        call_id.set(call.counts.call_id)
        log.info("the call begins")
        try:
            if self.recordings.always:
                self._start_recording(call)
            await self._make_call(call.connection, call)
            call.reason = call.reason or call.counts.end_reason or "the call is over"
        except asyncio.CancelledError:
            call.reason = call.reason or "the call was ended"
        except TalkingMachinesError as error:
            self.metrics.errors.labels("call").inc()
            log.error("the call has ended: %s", error)
            call.reason = str(error)
        except Exception:
            self.metrics.errors.labels("call").inc()
            log.exception("the call has ended with an error")
            call.reason = "something went wrong on the server; its log says what"
        finally:
            await self._finish(call)

    def _begin_to_end(self, call: Call) -> None:
        if not call.ending:
            call.over_by = time.monotonic() + ENDING
            self._line_stands(call)  # a call that ends before `watch` has seen it counts too

    async def _finish(self, call: Call) -> None:
        """Once, whoever asks; all wait for it."""
        if call.finishing is None:
            self._begin_to_end(call)
            call.finishing = asyncio.create_task(self._clean_up(call), name=f"end of call {call.counts.call_id}")
        await asyncio.shield(call.finishing)

    async def _clean_up(self, call: Call) -> None:
        try:
            await self.record(call, on=False)
        except Exception as error:
            log.warning("the recording did not end cleanly: %r", error)
        if call.connection is not None:
            try:
                async with asyncio.timeout(call.left()):
                    await call.connection.disconnect()
            except Exception as error:  # a connection that cannot be closed must not keep its place
                log.warning("the connection did not close cleanly: %s", error)
        log.info("the call has ended: %s", call.reason, extra={"call_id": call.counts.call_id})
        self._forget(call)

    def _forget(self, call: Call) -> None:
        if self.active.pop(call.id, None) is None:
            return
        self.metrics.observe(call)
        self.metrics.forget(call)
        self.metrics.calls.set(len(self.active))
        self._ended[call.id] = Ended(call.reason, call.recorded)
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
