"""An answer as it is written, in parts that a voice can say."""

import re
from collections.abc import Iterable, Iterator

_LEAST = 12
"""Characters of the first part: as long as they are being said, the next has time to be made."""

_SENTENCE = re.compile(r"[.!?]['\")]*\s")
_CLAUSE = re.compile(r"[.!?,;:]['\")]*\s|\s(?=(and|but|or|because|which|that|when|where|who|while|if|so)\s)")


def clauses(pieces: Iterable[str]) -> Iterator[str]:
    """Its sentences; of the first the first clause by itself, to be heard while the rest is being thought of."""
    waiting, begun = "", False
    for piece in pieces:
        waiting = (waiting + piece).lstrip()
        while end := _SENTENCE.search(waiting) if begun else _CLAUSE.search(waiting, _LEAST):
            yield waiting[: end.end()].rstrip()
            waiting, begun = waiting[end.end() :], True
    if waiting.strip():
        yield waiting.strip()
