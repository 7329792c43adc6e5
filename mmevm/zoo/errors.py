"""The errors of names that do not exist and of files that cannot be had."""

from mmevm.checkpoint.weights_only import CheckpointError


class NameUnknownError(CheckpointError, ValueError):
    """A name that the zoo does not have; the message names similar ones."""


class FetchError(CheckpointError, OSError):
    """A checkpoint that cannot be had: no network, no such file, no room; the message says what to do.

    An ``OSError`` like every other absent file, and a ``CheckpointError``, which the tools show as a sentence.
    """
