"""Without the packages of a call only what needs none of them is tested."""

from importlib.util import find_spec

if find_spec("pipecat") is None:
    calls = ("avatar_webrtc", "live_voice", "pipecat_bot", "run_call", "spoken_calls", "video_service", "voices")
    collect_ignore = [f"test_{name}.py" for name in (*calls, "livekit_avatar", "livekit_call", "livekit_worker")]
