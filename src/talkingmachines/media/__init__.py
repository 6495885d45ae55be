"""Pictures, recordings and videos of any common format, in and out of numpy."""

from talkingmachines.media.audio import read_audio
from talkingmachines.media.image import fit_image, read_image, write_image
from talkingmachines.media.video import AI_METADATA, check_output, write_video

__all__ = ["AI_METADATA", "check_output", "fit_image", "read_audio", "read_image", "write_image", "write_video"]
