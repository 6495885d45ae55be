"""A LiveKit agent with a face: the avatar is the three lines marked below, everything else is an ordinary agent.

Needs a LiveKit server, OPENAI_API_KEY, and on one machine or many

    pip install '.[livekit]'                  # in a checkout of TalkingMachines
    talkingmachines livekit --image face.png  # a worker: it makes the pictures

and here

    pip install '.[livekit]' 'livekit-agents[openai]==1.8.9'
    python examples/livekit_agent.py dev      # an agent: it hears, thinks and speaks

each with LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET set. Then open https://agents-playground.livekit.io, or
any page of yours that joins a room of that server.
"""

import logging

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.plugins import openai

from talkingmachines.conversation.livekit_agent import AvatarSession  # line one

server = AgentServer()


@server.rtc_session()
async def call(ctx: JobContext) -> None:
    """One call: LiveKit begins it for everybody who opens a room."""
    # A face cannot stop in the middle of a word and go on, so an interruption is final.
    session: AgentSession = AgentSession(
        llm=openai.realtime.RealtimeModel(), turn_handling={"interruption": {"resume_false_interruption": False}}
    )
    avatar = AvatarSession()  # line two
    await avatar.start(session, ctx.room)  # line three
    await session.start(Agent(instructions="You are Nova. Answer in a sentence or two."), room=ctx.room)
    try:
        await avatar.wait_for_join(timeout=20)
    except TimeoutError:
        logging.error("no worker has a free place; start another: talkingmachines livekit")
        ctx.shutdown("no face")


if __name__ == "__main__":
    cli.run_app(server)
