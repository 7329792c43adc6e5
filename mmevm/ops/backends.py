"""Which backends there are, and which one serves a tensor."""

from dataclasses import dataclass

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmevm.ops import extension

BACKENDS = ('auto', 'reference', 'compiled')

_REBUILD = 'reinstall with MMEVM_BUILD_EXT=1 and read the messages: pip install -v --no-build-isolation -e .'


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can serve tensors of a device.

    Attributes:
        name (str): Value for the operators' ``backend`` argument.
        device (str): Device type, as in ``torch.device.type``.
        available (bool): Whether it can be used now.
        reason (str): What it is, or why it is not available.
        remedy (str): What would make it available; empty when it is.
    """

    name: str
    device: str
    available: bool
    reason: str
    remedy: str = ''


def _compiled(device: str) -> BackendStatus:
    if extension.LOAD_ERROR is not None:
        return BackendStatus('compiled', device, False, extension.LOAD_ERROR, _REBUILD)
    if device not in extension.DEVICES:
        remedy = 'use backend="reference" or "auto", or move the tensors to the CPU'
        return BackendStatus('compiled', device, False, f'the extension has no {device} kernels', remedy)
    return BackendStatus('compiled', device, True, f'kernels of mmevm._C for {device}')


def status() -> list[BackendStatus]:
    """The state of every backend on every kind of device."""
    reference = BackendStatus('reference', 'any', True, 'plain PyTorch, the specification; slow')
    return [reference, _compiled('cpu'), _compiled('cuda')]


_announced: set[tuple[str, str]] = set()


def _announce(backend: str, device: str) -> None:
    """Says once per device which backend 'auto' took, and why it is the slow one."""
    if (backend, device) in _announced:
        return
    _announced.add((backend, device))
    why = '' if backend == 'compiled' else f', because {_compiled(device).reason}'
    print_log(f'mmevm scans {device} tensors with the {backend} backend{why}', logger='current')


def choose(backend: str, first: Tensor) -> str:
    """Resolves a ``backend`` argument for the device of ``first``.

    Raises:
        ValueError: If the name is unknown.
        RuntimeError: If the backend was asked for by name and cannot serve the device.
    """
    if backend not in BACKENDS:
        raise ValueError(f'`backend` must be one of {", ".join(map(repr, BACKENDS))}, got {backend!r}')
    if backend == 'reference':
        return backend
    device = first.device.type
    if device in extension.DEVICES:
        chosen = 'compiled'
    elif backend == 'auto':
        chosen = 'reference'
    else:
        missing = _compiled(device)
        raise RuntimeError(
            f'backend {backend!r} is not available for {device} tensors: {missing.reason}; {missing.remedy}'
        )
    if backend == 'auto' and not torch.compiler.is_compiling():
        _announce(chosen, device)
    return chosen


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether a gradient will be asked for, so that a compiled forward has to save its chunk states."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
