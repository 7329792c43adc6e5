"""Which backend serves a tensor."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from mmevm.ops import backends, extension


def _tensor(device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor whose device need not exist."""
    with FakeTensorMode():
        return torch.empty(2, dtype=dtype, device=device)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what is installed, and forgets what was announced."""

    def install(compiled_for: tuple[str, ...] = (), triton: bool = False, interpreted: bool = False) -> None:
        monkeypatch.setattr(extension, 'LOAD_ERROR', None if compiled_for else 'the extension is not built')
        monkeypatch.setattr(extension, 'DEVICES', frozenset(compiled_for))
        monkeypatch.setattr(backends, 'triton_import_error', lambda: None if triton else 'triton does not import')
        monkeypatch.setattr(backends, '_announced', set())
        # Not by the environment, which decides what Triton becomes for the whole process when it is first imported.
        monkeypatch.setattr(backends, '_interpreted', lambda: interpreted)

    return install


@pytest.mark.parametrize(
    'compiled_for, triton, device, expected',
    [
        (('cpu', 'cuda'), True, 'cuda', 'compiled'),
        (('cpu',), True, 'cuda', 'triton'),
        ((), True, 'cuda', 'triton'),
        (('cpu',), False, 'cuda', 'reference'),
        (('cpu',), True, 'cpu', 'compiled'),
        ((), True, 'cpu', 'reference'),
    ],
)
def test_auto_takes_the_fastest(
    machine: Callable, compiled_for: tuple[str, ...], triton: bool, device: str, expected: str
) -> None:
    machine(compiled_for, triton)
    assert backends.choose('auto', _tensor(device)) == expected


def test_auto_leaves_float64_on_a_gpu_to_triton(machine: Callable) -> None:
    machine(('cpu', 'cuda'), triton=True)
    assert backends.choose('auto', _tensor('cuda', torch.float64)) == 'triton'
    assert backends.choose('auto', _tensor('cpu', torch.float64)) == 'compiled'
    machine(('cpu', 'cuda'), triton=False)
    assert backends.choose('auto', _tensor('cuda', torch.float64)) == 'reference'


def test_auto_never_interprets(machine: Callable) -> None:
    machine((), triton=True, interpreted=True)
    assert backends.choose('auto', _tensor('cpu')) == 'reference'
    assert backends.choose('triton', _tensor('cpu')) == 'triton'


@pytest.mark.parametrize(
    'backend, device, dtype, message',
    [
        ('compiled', 'cuda', torch.float32, "'compiled' is not available for cuda tensors: the extension has no cuda"),
        ('triton', 'cpu', torch.float32, "'triton' is not available for cpu tensors: triton has no kernels for cpu"),
        ('triton', 'cuda', torch.float32, 'triton does not import; install the triton package'),
    ],
)
def test_a_backend_asked_for_by_name_is_there_or_says_why_not(
    machine: Callable, backend: str, device: str, dtype: torch.dtype, message: str
) -> None:
    machine(('cpu',), triton=device == 'cpu')
    with pytest.raises(RuntimeError, match=message):
        backends.choose(backend, _tensor(device, dtype))


def test_compiled_refuses_float64_on_a_gpu(machine: Callable) -> None:
    machine(('cpu', 'cuda'), triton=True)
    with pytest.raises(RuntimeError, match='float16, bfloat16 and float32 data, got torch.float64; use backend="'):
        backends.choose('compiled', _tensor('cuda', torch.float64))


def test_choose_rejects_unknown_names() -> None:
    with pytest.raises(ValueError, match="must be one of 'auto', 'reference', 'compiled', 'triton', got 'cuda'"):
        backends.choose('cuda', torch.empty(1))


def test_auto_says_once_what_it_took_and_what_it_passed_over(
    machine: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(('cpu',), triton=False)
    lines = []
    monkeypatch.setattr(backends, 'print_log', lambda text, logger: lines.append(text))
    for _ in range(2):
        backends.choose('auto', _tensor('cuda'))
        backends.choose('reference', _tensor('cuda'))
    why = 'because the extension has no cuda kernels and triton does not import'
    assert lines == [f'mmevm scans cuda tensors with the reference backend, {why}']


def test_status_names_cause_and_remedy(machine: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(('cpu', 'cuda'), triton=True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    rows = {(row.name, row.device): row for row in backends.status()}
    assert set(rows) == {('reference', 'any'), ('compiled', 'cpu'), ('compiled', 'cuda'), ('triton', 'cuda')}
    assert rows['compiled', 'cpu'].available and rows['reference', 'any'].available
    for name in ('compiled', 'triton'):
        assert not rows[name, 'cuda'].available
        assert rows[name, 'cuda'].reason == 'torch sees no GPU' and 'driver' in rows[name, 'cuda'].remedy
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert all(row.available and not row.remedy for row in backends.status())


def test_package_imports_and_scans_without_triton() -> None:
    code = """
import sys
sys.modules['triton'] = None  # any import of it fails
import torch
from mmevm.ops import backends, selective_scan
u = torch.ones(1, 2, 3)
y = selective_scan(u, u, -torch.ones(2, 4), torch.ones(1, 1, 4, 3), torch.ones(1, 1, 4, 3), backend='reference')
print(y.sum().item() > 0, *[row.reason for row in backends.status() if row.name == 'triton'])
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('True triton does not import (ModuleNotFoundError')


def test_package_does_not_import_triton() -> None:
    code = 'import sys, mmevm, mmevm.ops.backends; print("triton" in sys.modules)'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == 'False'


@pytest.mark.parametrize(
    'compiled_for, gpu, served',
    [
        ('8.0,9.0+PTX', (8, 0), True),
        ('8.0,9.0+PTX', (8, 9), True),
        ('8.0,9.0+PTX', (7, 5), False),
        ('8.0,9.0+PTX', (12, 0), True),
        ('8.0,9.0', (12, 0), False),
        ('8.6', (8, 0), False),
        ('9.0a', (9, 0), True),
        ('9.0a', (9, 1), False),
        ('10.0a+PTX', (12, 0), False),
        ('', (7, 0), True),
    ],
)
def test_auto_leaves_a_gpu_without_code_to_triton(
    machine: Callable, monkeypatch: pytest.MonkeyPatch, compiled_for: str, gpu: tuple[int, int], served: bool
) -> None:
    machine(('cpu', 'cuda'), triton=True)
    monkeypatch.setattr(extension, 'ARCHITECTURES', extension.parse_architectures(compiled_for))
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: gpu)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert backends.choose('auto', _tensor('cuda')) == ('compiled' if served else 'triton')
    row = next(row for row in backends.status() if (row.name, row.device) == ('compiled', 'cuda'))
    assert row.available == served
    if not served:
        assert f'this GPU has {gpu[0]}.{gpu[1]}' in row.reason and 'TORCH_CUDA_ARCH_LIST' in row.remedy
        with pytest.raises(RuntimeError, match='compiled for compute capability'):
            backends.choose('compiled', _tensor('cuda'))


@pytest.mark.parametrize('version, served', [('2.4.0', False), ('2.9.1+cpu', False), ('2.10.0', True), ('3.0', True)])
def test_older_torch_is_told_what_a_newer_one_brings(
    machine: Callable, monkeypatch: pytest.MonkeyPatch, version: str, served: bool
) -> None:
    monkeypatch.setattr(torch, '__version__', version)
    problem, remedy = extension.load()
    if served:
        assert problem is None or 'need torch' not in problem
        return
    assert problem.endswith(f'many times faster on the CPU, need torch 2.10 or newer, this is torch {version}')
    assert 'upgrade torch' in remedy
    machine((), triton=False)
    monkeypatch.setattr(extension, 'LOAD_ERROR', problem)
    lines = []
    monkeypatch.setattr(backends, 'print_log', lambda text, logger: lines.append(text))
    for _ in range(2):
        assert backends.choose('auto', torch.empty(1)) == 'reference'
    assert lines == [f'mmevm scans cpu tensors with the reference backend, because {problem}']
