"""The pipeline of one call: the user's sound, the voice, the avatar, the user's screen."""

from collections.abc import Sequence

from pipecat.observers.base_observer import BaseObserver
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker, ProcessorUnusablePolicy
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transports.base_transport import BaseTransport

from talkingmachines.conversation.video_service import AvatarVideoService
from talkingmachines.conversation.voices.voice import Voice
from talkingmachines.types import SAMPLE_RATE


def build_worker(
    transport: BaseTransport,
    voice: Voice,
    video: AvatarVideoService,
    observers: Sequence[BaseObserver] = (),
    taps: Sequence[FrameProcessor] = (),
) -> PipelineWorker:
    """transport.input, voice, avatar, transport.output, taps, and what of the voice hears what was played."""
    pipeline = Pipeline([transport.input(), *voice.before, video, transport.output(), *taps, *voice.after])
    return PipelineWorker(
        pipeline,
        params=PipelineParams(audio_in_sample_rate=SAMPLE_RATE, audio_out_sample_rate=SAMPLE_RATE),
        observers=list(observers),
        # A call lasts as long as the user stays; a part that fails for good ends it.
        cancel_on_idle_timeout=False,
        idle_timeout_secs=None,
        processor_unusable_policy=ProcessorUnusablePolicy.CANCEL,
    )
