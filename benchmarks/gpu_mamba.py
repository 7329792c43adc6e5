"""Build mamba_ssm's CUDA scan from its source distribution, only for this machine's GPU, and load it.

    python benchmarks/gpu_mamba.py build/gpu-wheels/mamba_ssm-*.tar.gz build/gpu-check/mamba

Installing the distribution would compile for nine architectures, and importing it imports all of its models. This
script compiles the same files with the same options for one, and imports only the module with ``selective_scan_fn``.
"""

import importlib
import importlib.metadata
import runpy
import sys
import tarfile
import types
from functools import partial
from pathlib import Path

try:
    import torch
    from composed import SelectiveScan

    from mmevm.ops import selective_scan
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

EXTENSION = 'selective_scan_cuda'
INTERFACE = 'mamba_ssm.ops.selective_scan_interface'

# As in mamba_ssm's own setup.py, except for the architectures.
CXX_FLAGS = ['-O3', '-std=c++17']
NVCC_FLAGS = [
    *CXX_FLAGS,
    *(
        f'-U__CUDA_NO_{name}__'
        for name in (
            'HALF_OPERATORS',
            'HALF_CONVERSIONS',
            'BFLOAT16_OPERATORS',
            'BFLOAT16_CONVERSIONS',
            'BFLOAT162_OPERATORS',
            'BFLOAT162_CONVERSIONS',
        )
    ),
    '--expt-relaxed-constexpr',
    '--expt-extended-lambda',
    '--use_fast_math',
    '-lineinfo',
]


def build(sdist: Path, folder: Path) -> Path:
    """Unpack the distribution into a folder and compile its scan there; needs ninja and nvcc.

    Args:
        sdist (Path): ``mamba_ssm-<version>.tar.gz``.
        folder (Path): Where it is unpacked; created if it is missing.

    Returns:
        Path: The folder to pass to :func:`load`.

    Raises:
        RuntimeError: If it does not compile.
    """
    from torch.utils.cpp_extension import load as compile_extension

    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter='data')
    root = folder / sdist.name.removesuffix('.tar.gz')
    csrc = root / 'csrc' / 'selective_scan'
    (root / 'lock').unlink(missing_ok=True)  # torch would wait for the lock of an interrupted build
    sources = sorted(str(path) for pattern in ('*.cpp', '*.cu') for path in csrc.glob(pattern))
    compile_extension(
        EXTENSION, sources, CXX_FLAGS, NVCC_FLAGS, extra_include_paths=[str(csrc)], build_directory=str(root)
    )
    return root


def load(folder: Path | None = None) -> tuple[SelectiveScan | None, str]:
    """Import mamba_ssm's ``selective_scan_fn``.

    Args:
        folder (Path, optional): Where :func:`build` put it, or the folder above; without it, the installed package.

    Returns:
        tuple[SelectiveScan or None, str]: The function and what it is, or None and why it is missing.
    """
    if folder is not None:
        built = next((path.parent for path in sorted(folder.glob(f'**/{EXTENSION}*.so'))), None)
        if built is None:
            return None, f'mamba_ssm is not built in {folder}'
        sys.path.insert(0, str(built))
        # The package's own __init__ imports its language models and what they depend on.
        package = types.ModuleType('mamba_ssm')
        package.__path__ = [str(built / 'mamba_ssm')]
        sys.modules['mamba_ssm'] = package
    try:
        function = importlib.import_module(INTERFACE).selective_scan_fn
    except Exception as error:  # of any kind, as it is third-party code; the benchmark has a substitute
        return None, f'mamba_ssm does not import ({type(error).__name__}: {error})'
    name = built.name.replace('-', ' ') if folder else f'mamba_ssm {importlib.metadata.version("mamba_ssm")}'
    return function, f"{name}'s selective_scan_fn"


def choose(folder: Path | None, device: torch.device) -> tuple[SelectiveScan, str]:
    """Return the scan of the composed path on a device: mamba_ssm's function where it works, else mmevm's operator.

    Args:
        folder (Path, optional): See :func:`load`.
        device (torch.device): Where the benchmark runs.

    Returns:
        tuple[SelectiveScan, str]: The function and, for the reader, which one it is and why.
    """
    function, text = load(folder) if device.type == 'cuda' else (None, 'mamba_ssm has no CPU kernels')
    if function is not None:
        try:
            check(function, device)
        except Exception as error:  # see load
            function, text = None, f'{text} fails ({type(error).__name__}: {error})'
    return (function, text) if function else (selective_scan, f"mmevm's own selective_scan: {text}")


def check(function: SelectiveScan, device: torch.device) -> None:
    """Raise unless a function scans, and differentiates, as mmevm's reference does."""
    gen = torch.Generator().manual_seed(0)
    u, delta, Bs, Cs = (torch.randn(2, *shape, 50, generator=gen) for shape in ((8,), (8,), (4, 16), (4, 16)))
    parameters = -torch.rand(8, 16, generator=gen) - 0.1, torch.randn(8, generator=gen)
    results = []
    for scan in (function, partial(selective_scan, backend='reference')):
        leaves = [t.to(device).requires_grad_() for t in (u, delta, parameters[0], Bs, Cs, parameters[1])]
        y = scan(*leaves, delta_bias=torch.zeros(8, device=device), delta_softplus=True)
        results.append([y, *torch.autograd.grad(y.sum(), leaves)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def main() -> int:
    """Build and load; return the exit status."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    function, text = load(build(Path(sys.argv[1]), Path(sys.argv[2])))
    print(text)
    return 0 if function else 1


if __name__ == '__main__':
    raise SystemExit(main())
