"""A Pipecat bot with a face: the avatar is the three lines marked below, everything else is an ordinary Pipecat bot.

Needs a microphone in a browser, OPENAI_API_KEY, a picture of the character (face.png, or what PICTURE names), and

    pip install '.[call]' 'pipecat-ai[runner,webrtc]==1.14.*'
    python examples/pipecat_bot.py            # then open the address that it prints
"""

import os

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.runner.types import RunnerArguments, SmallWebRTCRunnerArguments
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.workers.runner import WorkerRunner

import talkingmachines as tm
from talkingmachines.conversation.video_service import AvatarVideoService
from talkingmachines.conversation.webrtc import AvatarWebRTCTransport
from talkingmachines.media.image import read_image

PICTURE = os.environ.get("PICTURE", "face.png")

# Once in a process: all calls share it. On a processor better talkingmachines.apart.ApartAvatar("pocket").
avatar = tm.load("pocket")


async def bot(arguments: RunnerArguments) -> None:
    """One call: Pipecat's runner begins it for everybody who opens the page."""
    assert isinstance(arguments, SmallWebRTCRunnerArguments)
    key = os.environ["OPENAI_API_KEY"]
    # Line one. Of another transport it is those that send pictures: video_out_enabled, and the avatar's size and 25 a
    # second.
    transport = AvatarWebRTCTransport(arguments.webrtc_connection, avatar.shape)
    llm = OpenAILLMService(
        api_key=key, settings=OpenAILLMService.Settings(system_instruction="You are Nova. Answer in a sentence or two.")
    )
    user, assistant = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    )
    face = AvatarVideoService(avatar, read_image(PICTURE))  # line two
    pipeline = Pipeline(
        [
            transport.input(),
            OpenAISTTService(api_key=key),
            user,
            llm,
            OpenAITTSService(api_key=key, sample_rate=24_000),  # what it speaks, whatever is asked for
            face,  # line three
            transport.output(),
            assistant,
        ]
    )
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_in_sample_rate=16_000, audio_out_sample_rate=16_000))

    @transport.event_handler("on_client_disconnected")
    async def gone(*_: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=arguments.handle_sigint)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
