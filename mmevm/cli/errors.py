"""The error that a command line tool shows as plain sentences instead of a traceback."""

import os
import sys
from collections.abc import Callable

from mmevm.checkpoint.weights_only import CheckpointError


class UsageError(Exception):
    """Something the user can put right; the message says what was expected, what came and what to do.

    Attributes:
        in_one_process (bool): Whether only one process of a distributed run meets it, which then has to speak.
    """

    in_one_process = False


def exit_status(run: Callable[[], None]) -> int:
    """Run a tool; print what the user can put right on stderr.

    Returns:
        int: 0, or 2 after a :class:`UsageError` or a checkpoint that cannot be opened.
    """
    try:
        run()
    except (UsageError, CheckpointError) as error:
        # One process of a distributed run speaks for all.
        if os.environ.get('RANK', '0') == '0' or getattr(error, 'in_one_process', False):
            print(f'\n{error}', file=sys.stderr)
        return 2
    return 0
