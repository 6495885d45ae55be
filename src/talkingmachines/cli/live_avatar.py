"""The avatar of commands that make calls: in a process of its own, in as many steps as this machine has time for."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from talkingmachines.cli.avatar_options import AvatarOptions

if TYPE_CHECKING:
    from rich.status import Status

    from talkingmachines.apart import ApartAvatar

log = logging.getLogger(__name__)

HALF = 0.5
"""Of real time that the pictures of one call may take. With more, what hears, thinks and speaks beside them waits for a
core, and so do pictures: where they took 0.6, one second of a call with eleven questions had 11 of its 25 frames."""


def live_avatar(
    options: AvatarOptions, device: str, begin: Callable[[], None], max_calls: int | None, status: "Status"
) -> "tuple[ApartAvatar, int]":
    """The avatar, and how many calls to take at the same time: `max_calls`, or as many as fit this machine.

    On a processor that has more to do with one call than HALF, chunks are made in one step, unless the options say in
    how many. begin: see ApartAvatar. Raises as avatar.load.
    """
    avatar = options.load_apart(device, begin)
    on_processor = avatar.device == "cpu"
    if max_calls and not on_processor:
        return avatar, max_calls
    status.update("measuring how many calls fit")
    fit, share = _measured(avatar)
    if on_processor and share > HALF and avatar.steps > 1 and options.steps is None:
        log.info(
            "chunks are made in 1 step of denoising, which leaves time for the rest (--steps %d: all)", avatar.steps
        )
        avatar.close()
        avatar = replace(options, steps=1).load_apart(device, begin)
        fit, share = _measured(avatar)
    return avatar, max_calls or fit


def _measured(avatar: "ApartAvatar") -> tuple[int, float]:
    """See calls_that_fit; says it in the log, too."""
    from talkingmachines.server.capacity import calls_that_fit
    from talkingmachines.server.pictures import LOOKS, bundled_picture

    count, share = calls_that_fit(avatar, bundled_picture(LOOKS[0]), avatar.window + 2)
    words = f"a call takes {share:.0%} of real time here: {count} call{'s' * (count > 1)} at the same time"
    if share > 1:
        log.warning("%s, which will stutter", words)
    else:
        log.info("%s", words)
    return count, share
