"""Report of what was loaded from a checkpoint."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmengine.logging import print_log

from mmevm.checkpoint.names import plain
from mmevm.checkpoint.weights_only import CheckpointError


@dataclass
class LoadReport:
    """What was loaded from a checkpoint, and what was not.

    Attributes:
        loaded (list[str]): Parameters and buffers taken from the checkpoint.
        fresh (list[str]): Entries that keep their initialisation: output norms that the checkpoint was made without,
            and everything around the backbone if the checkpoint has only the backbone.
        adapted (list[str]): Entries that were reshaped for the model, as a 1 x 1 kernel to a matrix, or the stem's
            kernel for another number of input channels.
        resampled (list[str]): Entries that were interpolated, as a position embedding for another image size.
        derived (list[str]): Buffers that the checkpoint lacks and that the model fills itself, as its own patch grid.
        notes (dict[str, str]): How adapted and interpolated entries were changed, where it is not obvious.
        dropped (list[str]): Entries of a classifier, of a model of another task, of heads that the model was built
            without, of stages and output norms on which no returned map depends, or outside the model.
        missing (list[str]): Entries of the model that the checkpoint lacks.
        unexpected (list[str]): Entries of the checkpoint that the model lacks.
        mismatched (list[str]): Entries of another shape, with both shapes.
        unusable (list[str]): Entries whose values cannot be the model's, as NaN or quantised ones, with the reason.
    """

    loaded: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One line for each kind of difference that a strict load refuses, with the first names."""
        kinds = {'missing': self.missing, 'unexpected': self.unexpected, 'of another shape': self.mismatched}
        lines = [f'{len(names)} {kind}: {_join(names)}' for kind, names in kinds.items() if names]
        if self.unusable:
            remedy = 'save them as finite floating-point numbers in the range of the model, or take another file'
            lines.append(f'{len(self.unusable)} with values that cannot be weights: {_join(self.unusable)}; {remedy}')
        return lines

    def rename(self, names: Mapping[str, str]) -> None:
        """Give the model's entries the names that it has for them, by their plain ones."""
        for entries in (self.loaded, self.fresh, self.adapted, self.resampled, self.derived, self.missing):
            entries[:] = [names[name] for name in entries]
        self.notes = {names[name]: note for name, note in self.notes.items()}

    def require_whole(self, where: str) -> None:
        """Refuse a checkpoint that leaves a part of the model as it was initialised.

        Args:
            where (str): Name of the checkpoint in the message.

        Raises:
            CheckpointError: If anything is fresh.
        """
        if self.fresh:
            parts = ', '.join(dict.fromkeys(plain(name).partition('.')[0] for name in self.fresh))
            raise CheckpointError(f'{where} lacks {len(self.fresh)} tensors of {parts}, which would stay random')

    def log(self, where: str) -> None:
        """Log what was loaded in one line, and each kind of difference in another.

        Args:
            where (str): Name of the checkpoint in the message.
        """
        notes = {
            'adapted': ', '.join(self._with_notes(self.adapted)),
            'interpolated': ', '.join(self._with_notes(self.resampled)),
            'dropped': _modules(self.dropped),
            'left fresh': _modules(self.fresh),
        }
        details = [f'{verb} {names}' for verb, names in notes.items() if names]
        print_log('; '.join([f'loaded {len(self.loaded)} tensors from {where}', *details]), logger='current')
        for problem in self.problems:
            print_log(f'{where}: {problem}', logger='current', level=logging.WARNING)

    def _with_notes(self, names: list[str]) -> list[str]:
        return [f'{name} ({self.notes[name]})' if name in self.notes else name for name in names]


_MOST_NAMES = 8


def _join(names: list[str]) -> str:
    return ', '.join(names[:_MOST_NAMES]) + (
        f' and {len(names) - _MOST_NAMES} more' if len(names) > _MOST_NAMES else ''
    )


# A stage of a backbone, or a block of Vim; its parts are not listed one by one.
_STAGE = re.compile(r'(?:.*\.)?layers\.\d+')
_IN_STAGE = re.compile(rf'({_STAGE.pattern})\.(?:blocks|mixer|norm)\..*')


def _modules(names: list[str]) -> str:
    """Return the modules of entries, each once; if there are many, the modules that contain them."""
    groups = dict.fromkeys(_IN_STAGE.sub(r'\1.', name).rpartition('.')[0] or name for name in names)
    depth = max((group.count('.') for group in groups), default=0)
    while len(groups) > _MOST_NAMES and depth:
        groups = dict.fromkeys(
            group if _STAGE.fullmatch(group) else '.'.join(group.split('.')[:depth]) for group in groups
        )
        depth -= 1
    return _join(list(groups))
