"""Without the [call] extra there is nothing to be tested here."""

from importlib.util import find_spec

collect_ignore_glob = ["test_*.py"] if find_spec("pipecat") is None or find_spec("uvicorn") is None else []
