"""The zoo for ``torch.hub``: ``torch.hub.load(PATH, 'efficient_vmamba_tiny', source='local', pretrained=False)``."""

from collections.abc import Callable as _Callable
from typing import Any as _Any

from mmevm import zoo as _zoo

dependencies = ['torch', 'mmengine']


def _entrypoint(name: str) -> _Callable[..., _Any]:
    def load(pretrained: bool = True, task: str | None = None) -> _Any:
        if not isinstance(pretrained, bool):
            raise TypeError(f'`pretrained` must be True or False, got {pretrained!r}')
        return (_zoo.load if pretrained else _zoo.build)(name, task)

    entry = _zoo.ENTRIES[name]
    load.__name__ = name
    load.__doc__ = f"""{entry.architecture}, {entry.arch}: a backbone, or the complete model for its task.

    Args:
        pretrained (bool): With the released weights, downloaded and verified, in evaluation mode; otherwise with random
            ones.
        task (str, optional): By default the backbone, which returns feature maps; {entry.task!r} gives the complete
            model.

    Returns:
        nn.Module: The model.
    """
    return load


globals().update({name: _entrypoint(name) for name, entry in _zoo.ENTRIES.items() if entry.available})
