"""Errors: unknown names, and files that cannot be downloaded."""

from mmevm.checkpoint.weights_only import CheckpointError


class NameUnknownError(CheckpointError, ValueError):
    """A name that the zoo does not have; the message suggests similar ones."""


class FetchError(CheckpointError, OSError):
    """A checkpoint that cannot be downloaded: no network, no such file, no space; the message says what to do.

    It is an ``OSError``, as for any missing file, and a ``CheckpointError``, which the tools print without a traceback.
    """
