"""One call, from its first picture to its end."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from loguru import logger
from pipecat.frames.frames import CancelFrame, ErrorFrame
from pipecat.observers.base_observer import BaseObserver
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transports.base_transport import BaseTransport
from pipecat.workers.runner import WorkerRunner

from talkingmachines.conversation.counts import CallCounts
from talkingmachines.conversation.live_thread import Character
from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.pipeline import build_worker
from talkingmachines.conversation.video_service import AvatarVideoService
from talkingmachines.conversation.voices import build_voice
from talkingmachines.conversation.voices.voice import Voice

__all__ = ["CallCounts", "CallOptions", "prepare", "run_call"]

LEFT = "the user has left"
REFUSED = "a service behind the voice has refused; the server's log says why"


async def prepare(options: CallOptions) -> dict[str, str]:
    """Reads the models of a voice, so that the first call need not wait; returns what is in use. Raises as run_call."""
    return (await asyncio.to_thread(build_voice, options)).stacks


async def run_call(
    transport: BaseTransport,
    avatar: Character,
    image: np.ndarray,
    options: CallOptions,
    *,
    counts: CallCounts | None = None,
    observers: Sequence[BaseObserver] = (),
    taps: Sequence[FrameProcessor] = (),
) -> CallCounts:
    """Runs a call until the user has left, something has failed for good, or the task is cancelled.

    image: [H, W, 3] uint8; counts: given to be read while the call runs. observers see every frame of the pipeline;
    taps are placed behind the transport's output, where pictures and sound pass when they are played.

    Raises ConfigError and MissingPackageError before anything has begun. However it ends, no task, thread or
    connection of it is left; counts.end_reason says how.
    """
    counts = counts or CallCounts()
    counts.call_id = options.call_id or counts.call_id or secrets.token_hex(4)
    counts.voice = options.voice
    with logger.contextualize(call_id=counts.call_id):
        video = AvatarVideoService(avatar, image, seed=options.seed, counts=counts)
        try:
            voice, _ = await asyncio.gather(asyncio.to_thread(build_voice, options), video.open())
        except BaseException:
            await video.close()
            raise
        counts.stacks = dict(voice.stacks)
        worker = build_worker(transport, voice, video, observers, taps)
        _watch(transport, worker, voice, counts)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        logger.info("the call begins: {}, {}", options.persona.name, counts.stacks)
        try:
            await runner.run()
        finally:
            counts.end_reason = counts.end_reason or "the call was ended"
            logger.info("the call is over: {}", counts.end_reason)
        task = asyncio.current_task()
        if task and task.cancelling():
            raise asyncio.CancelledError  # the runner ends its pipelines, and keeps this to itself
    return counts


def _watch(transport: BaseTransport, worker: PipelineWorker, voice: Voice, counts: CallCounts) -> None:
    """Greets who comes, ends the call of who leaves, and notes what goes wrong."""

    async def connected(_: BaseTransport, __: Any) -> None:
        if voice.greeting:
            await worker.queue_frames(voice.greeting)
            voice.greeting = []

    async def disconnected(_: BaseTransport, __: Any) -> None:
        counts.end_reason = counts.end_reason or LEFT
        await worker.queue_frame(CancelFrame(reason=LEFT))

    async def failed(_: PipelineWorker, frame: ErrorFrame) -> None:
        counts.errors += 1
        logger.error("an error in the call: {}", frame.error)
        if frame.processor and not frame.processor.is_usable and counts.end_reason not in (LEFT, REFUSED):
            # Services say it with status codes and JSON, which is for the log.
            refused = frame.category and frame.category.is_permanent
            counts.end_reason = REFUSED if refused else frame.error

    transport.add_event_handler("on_client_connected", connected)
    transport.add_event_handler("on_client_disconnected", disconnected)
    worker.add_event_handler("on_pipeline_error", failed)
