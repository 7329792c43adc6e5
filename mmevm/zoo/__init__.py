"""The model zoo: released checkpoints by name, verified when fetched and whenever they are opened."""

from mmevm.zoo.entries import ENTRIES, Entry, find_entry

__all__ = ['ENTRIES', 'Entry', 'find_entry']
