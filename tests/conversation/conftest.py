"""Without the packages of a call only what needs none of them is tested."""

from importlib.util import find_spec

if find_spec("pipecat") is None:
    collect_ignore = [f"test_{name}.py" for name in ("call", "spoken_calls", "video_service", "voices", "webrtc")]
