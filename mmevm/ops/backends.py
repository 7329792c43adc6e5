"""Which backends there are, and which one serves a tensor."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmevm.ops import compiled, extension, triton
from mmevm.ops.flops import join_torch_counter
from mmevm.ops.transforms import need_plain_operations

BACKENDS = ('auto', 'reference', 'compiled', 'triton')

_NAMESPACES = {'compiled': compiled.NAMESPACE, 'triton': triton.NAMESPACE}

Problem = tuple[str, str]
"""Why a backend is not available, and what would make it so."""


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


def _compiled_problem(device: torch.device, dtype: torch.dtype) -> Problem | None:
    if extension.LOAD_ERROR is not None:
        return extension.LOAD_ERROR, extension.LOAD_REMEDY
    if device.type not in extension.DEVICES:
        others = '"triton", "reference"' if device.type == 'cuda' else '"reference"'
        remedy = f'use backend={others} or "auto", or move the tensors to the CPU'
        missing = extension.CUDA_LOAD_ERROR if device.type == 'cuda' else None
        return missing or f'the extension has no {device.type} kernels', remedy
    if device.type != 'cuda':
        return None
    if dtype == torch.float64:
        return (
            'its CUDA kernels serve float16, bfloat16 and float32 data, got torch.float64',
            'use backend="triton", "reference" or "auto", or convert the data',
        )
    problem = extension.architecture_problem(device)
    if problem is not None:
        return problem, 'reinstall from source where this GPU is visible, or name it in TORCH_CUDA_ARCH_LIST'
    return None


def triton_import_error() -> str | None:
    """Why Triton cannot be imported, or None when it can."""
    try:
        import triton as _  # noqa: F401  takes a second, and so waits until it is needed
    except Exception as error:  # a broken installation fails in any way
        return f'triton does not import ({type(error).__name__}: {error})'
    return None


def _interpreted() -> bool:
    """Whether Triton runs its kernels in its interpreter, which is slow and takes tensors on the CPU."""
    return os.environ.get('TRITON_INTERPRET') == '1'


def _triton_problem(device: torch.device, dtype: torch.dtype) -> Problem | None:
    error = triton_import_error()
    if error is not None:
        return error, 'install the triton package that fits this torch: pip install triton'
    if device.type != 'cuda' and not _interpreted():
        return f'triton has no kernels for {device.type} tensors', 'use backend="auto", or move the tensors to a GPU'
    return None


_PROBLEMS = {'compiled': _compiled_problem, 'triton': _triton_problem}


def status() -> list[BackendStatus]:
    """The state of every backend on every kind of device."""
    rows = [BackendStatus('reference', 'any', True, 'plain PyTorch, the specification; slow')]
    kernels = {'compiled': 'compiled with mmevm', 'triton': 'compiled by Triton when they first run'}
    for name, device in (('compiled', 'cpu'), ('compiled', 'cuda'), ('triton', 'cuda')):
        problem = _PROBLEMS[name](torch.device(device), torch.float32)
        if problem is None and device == 'cuda' and not torch.cuda.is_available():
            problem = 'torch sees no GPU', 'run on a machine with a GPU, its driver, and a torch that is built for it'
        if problem is None:
            rows.append(BackendStatus(name, device, True, f'{device} kernels, {kernels[name]}'))
        else:
            rows.append(BackendStatus(name, device, False, *problem))
    return rows


_announced: set[tuple[str, str]] = set()


def _announce(backend: str, device: str, passed_over: list[str]) -> None:
    """Says once per device which backend 'auto' took, and why no better one."""
    if (backend, device) in _announced:
        return
    _announced.add((backend, device))
    why = f', because {" and ".join(passed_over)}' if passed_over else ''
    print_log(f'mmevm scans {device} tensors with the {backend} backend{why}', logger='current')


def _first_available(device: torch.device, dtype: torch.dtype) -> tuple[str, list[str]]:
    """The fastest backend, and why those before it are passed over."""
    passed_over: list[str] = []
    for name in ('compiled', 'triton') if device.type == 'cuda' else ('compiled',):
        problem = _PROBLEMS[name](device, dtype)
        if problem is None:
            return name, passed_over
        passed_over.append(problem[0])
    return 'reference', passed_over


_PLAIN = 'torch.func transforms and forward-mode differentiation need plain PyTorch operations'


def choose(backend: str, first: Tensor, *others: Tensor | None) -> str:
    """Resolves a ``backend`` argument for the device and dtype of ``first``, and for how derivatives are taken.

    Args:
        backend (str): As given by the user.
        first (Tensor): The operator's first input.
        *others (Tensor, optional): Its other inputs, any of which may carry a tangent.

    Raises:
        ValueError: If the name is unknown.
        RuntimeError: If the backend was asked for by name and cannot serve the tensors.
    """
    if backend not in BACKENDS:
        raise ValueError(f'`backend` must be one of {", ".join(map(repr, BACKENDS))}, got {backend!r}')
    device = first.device.type
    if backend != 'reference' and need_plain_operations(first, *others):
        if backend != 'auto':
            remedy = 'use backend="reference" or "auto"'
            raise RuntimeError(f'backend {backend!r} is not available here: {_PLAIN}; {remedy}')
        if not torch.compiler.is_compiling():
            _announce('reference', device, [_PLAIN])
        return 'reference'
    if backend == 'auto':
        chosen, passed_over = _first_available(first.device, first.dtype)
        if not torch.compiler.is_compiling():
            _announce(chosen, device, passed_over)
        return chosen
    problem = None if backend == 'reference' else _PROBLEMS[backend](first.device, first.dtype)
    if problem is not None:
        raise RuntimeError(f'backend {backend!r} is not available for {device} tensors: {problem[0]}; {problem[1]}')
    return backend


def operators(backend: str) -> Any:
    """The operators of a backend other than the reference, which has none, as in ``torch.ops``."""
    if not torch.compiler.is_compiling():
        join_torch_counter(_NAMESPACES[backend])
    return getattr(torch.ops, _NAMESPACES[backend])


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether the forward pass has to save its chunk states for a gradient that will be asked for.

    Not in a traced graph, which mostly serves inference: without them the backward pass computes them again.
    """
    if torch.jit.is_tracing():
        return False
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
