"""Logs that say which call they are about, for people or, as JSON lines, for programs."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

call_id: ContextVar[str] = ContextVar("call_id", default="")
"""Of the call that the running task works for; every line that is logged then carries it."""


LONGEST = 1000
"""Characters of a line of pipecat's: it repeats whole messages that it cannot read."""


def set_up_logging(json_lines: bool, level: int = logging.INFO) -> None:
    """Everything that is logged goes to stderr, one line each; pipecat's and uvicorn's logs too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if json_lines else Plain())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("aioice", "aiortc", "httpx", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        from loguru import logger
    except ModuleNotFoundError:
        return
    logger.remove()
    logger.add(_from_loguru, level=level, format="{message}")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, call (where there is one), error (with its traceback)."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if call := _call_of(record):
            line["call"] = call
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Plain(logging.Formatter):
    """For the eye: time, the call where there is one, and what happened."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(call)s%(levelname).1s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        call = _call_of(record)
        record.call = f"[{call}] " if call else ""
        return super().format(record)


def _call_of(record: logging.LogRecord) -> str:
    return str(getattr(record, "call_id", "") or call_id.get())


def _from_loguru(message: object) -> None:
    """Hands a line of loguru on to the standard library."""
    record = message.record  # type: ignore[attr-defined]  # loguru's str with a record
    error, text = record["exception"], record["message"]
    logging.getLogger(record["name"]).log(
        min(record["level"].no, logging.CRITICAL),
        "%s",
        text if len(text) <= LONGEST else f"{text[:LONGEST]}...",
        exc_info=(error.type, error.value, error.traceback) if error else None,
        extra={"call_id": record["extra"].get("call_id", "")},
    )
