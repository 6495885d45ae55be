"""Every error that a user can cause. The message says what was wrong and what to do about it, in one line."""


class TalkingMachinesError(Exception):
    """Base of all errors raised on purpose by this package."""


class MediaError(TalkingMachinesError):
    """A picture, recording or video cannot be read or written."""


class CheckpointError(TalkingMachinesError):
    """A weights file is missing, damaged, or belongs to another model."""


class ConfigError(TalkingMachinesError):
    """A setting has a value that cannot work."""


class MissingPackageError(TalkingMachinesError):
    """An optional package is needed for what was asked."""


class TrainingError(TalkingMachinesError):
    """Training cannot start or go on."""


class SessionError(TalkingMachinesError):
    """A session is closed, ended by an error, or already busy."""
