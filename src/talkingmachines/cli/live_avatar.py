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


def live_avatar(
    options: AvatarOptions, device: str, begin: Callable[[], None], max_calls: int | None, status: "Status"
) -> "tuple[ApartAvatar, int]":
    """The avatar, and how many calls to take at the same time: `max_calls`, or as many as fit this machine.

    On a processor for which one call is too much, chunks are made in one step, unless the options say in how many: all
    pictures, each a little worse. begin: see ApartAvatar. Raises as avatar.load.
    """
    from talkingmachines.server.capacity import SHARE

    avatar = options.load_apart(device, begin)
    on_processor = avatar.device == "cpu"
    if max_calls and not on_processor:
        return avatar, max_calls
    status.update("measuring how many calls fit")
    fit, share = _measured(avatar)
    if on_processor and share > SHARE and avatar.steps > 1 and options.steps is None:
        log.warning("too slow here: chunks are made in 1 step of denoising (--steps %d: in all)", avatar.steps)
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
