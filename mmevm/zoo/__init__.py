"""The model zoo: released checkpoints by name, verified when they are downloaded and whenever they are opened.

Importing it registers ``mmevm://NAME`` with MMEngine's checkpoint loader.
"""

from mmevm.zoo.conversion import convert
from mmevm.zoo.entries import ENTRIES, Entry, find_entry
from mmevm.zoo.errors import FetchError, NameUnknownError
from mmevm.zoo.fetching import fetch
from mmevm.zoo.loader import build, load

__all__ = ['ENTRIES', 'Entry', 'FetchError', 'NameUnknownError', 'build', 'convert', 'fetch', 'find_entry', 'load']
