"""What the CUDA kernels take of a GPU, read off the compiler's report, and how many warps that leaves room for.

``python -m tests.test_ops.cuda_resources`` compiles them for every architecture of the table, which takes minutes, and
compares; with ``--write`` it writes the table anew, for a change that is meant.
"""

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmevm import _cuda_toolkit
from mmevm.ops import es2d_routes
from mmevm.ops.routes import flatten
from tests.emulation.build import load_emulation

from .samples import SS2D

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / 'tests' / 'data' / 'cuda_resources.json'
FILES = ('map_half', 'map_float', 'sequence_half', 'sequence_float', 'carry', 'merge')
"""bfloat16's kernels differ from float16's in a conversion."""

Resources = dict[str, int]
"""Of one kernel: registers, stack (bytes), spills (bytes stored and loaded)."""


class Card(NamedTuple):
    """A GPU: its architecture, and its limits in the order of ``cuda::Limits``."""

    architecture: str
    multiprocessors: int
    bytes_per_block: int
    bytes: int
    reserved_bytes: int
    registers: int
    threads: int
    blocks: int


CARDS = {
    'T4': Card('75', 40, 64 << 10, 64 << 10, 0, 65536, 1024, 16),
    'A100': Card('80', 108, 163 << 10, 164 << 10, 1 << 10, 65536, 2048, 32),
    'RTX 4090': Card('89', 128, 99 << 10, 100 << 10, 1 << 10, 65536, 1536, 24),
    'H100': Card('90', 132, 227 << 10, 228 << 10, 1 << 10, 65536, 2048, 32),
}
"""Compute capabilities 7.5, 8.0, 8.9 and 9.0; limits from the CUDA programming guide."""


class Case(NamedTuple):
    """A scan over maps: their size, the kernel's states and rank, whether it is the cross scan."""

    batch: int
    side: int
    D: int
    N: int
    R: int
    cross: bool = False


CASES = {
    'EVM-T stage 1': Case(128, 56, 96, 16, 3),
    'EVM-T stage 1, batch 64': Case(64, 56, 96, 16, 3),
    'EVM-T stage 2': Case(128, 28, 192, 16, 6),
    'EVM-S stage 1': Case(128, 56, 128, 16, 4),
    'EVM-B stage 2': Case(128, 28, 384, 16, 12),
    'VMamba v1 stage 4': Case(128, 7, 1536, 16, 48, True),
    'VMamba v2 stage 3': Case(128, 14, 384, 1, 24, True),
}


def compile_file(name: str, architecture: str) -> dict[str, Resources]:
    """Compile one file of csrc/cuda; return its kernels' resources, by a readable name."""
    toolkit = _cuda_toolkit.find_cuda_toolkit()
    source = ROOT / 'csrc' / 'cuda' / f'{name}.cu'
    with tempfile.TemporaryDirectory() as folder:
        command = [toolkit.home / 'bin' / 'nvcc', '-std=c++17', '-O3', f'-arch=sm_{architecture}', '-cubin']
        command += ['-Xptxas=-v', '-o', Path(folder) / 'kernels.cubin', source]
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return {f'{name} {kernel}': resources for kernel, resources in parse(result.stderr).items()}


def parse(report: str) -> dict[str, Resources]:
    """Read ptxas's report."""
    found = {}
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r'.*?Used (\d+) registers'
    )
    for symbol, stack, stored, loaded, registers in re.findall(pattern, report, re.DOTALL):
        found[readable(symbol)] = {
            'registers': int(registers),
            'stack': int(stack),
            'stored': int(stored),
            'loaded': int(loaded),
        }
    return found


def readable(symbol: str) -> str:
    """Name a kernel's instance: ``scan_forward output 16`` and the like, with the number of states."""
    kernel = re.search(r'(scan_forward|scan_backward|adjoint_local|fold_carry|merge)_kernel', symbol)[1]
    if kernel == 'merge':
        return f'{kernel} {next((t for t in ("half", "bfloat16") if t in symbol), "float")}'
    if kernel == 'fold_carry':
        kind, direction = 'map' if 'MapParams' in symbol else 'sequence', 'backward' if 'Lb1E' in symbol else 'forward'
        return f'{kernel} {kind} {direction}'
    states = re.search(r'Source\w*?Li(\d+)E', symbol)[1]
    middle = '' if kernel != 'scan_forward' else ' output' if 'Lb1E' in symbol else ' local'
    return f'{kernel}{middle} {states}'


def compile_all(architecture: str, files: tuple[str, ...] = FILES) -> dict[str, Resources]:
    """The resources of all kernels in some files."""
    with ThreadPoolExecutor(2) as pool:
        parts = pool.map(lambda name: compile_file(name, architecture), files)
    return {name: resources for part in parts for name, resources in sorted(part.items())}


def plan(card: Card, case: Case, backward: bool) -> dict[str, int]:
    """How the launchers split a scan of half-precision maps on a card."""
    load_emulation()
    torch.ops.mmevm_emulated.set_limits(list(card[1:]))
    K, P = 4, 4 if case.cross else 1
    size = (case.batch, case.side, case.side)
    tensors = [torch.empty(*size, case.D, dtype=torch.float16)]
    tensors += [torch.empty(*size, P, case.R + 2 * case.N, dtype=torch.float16)]
    tensors += [torch.empty(K, case.D, *last) for last in ((case.R,), (), (case.N,), ())]
    routes, step = (SS2D, 1) if case.cross else (es2d_routes(), 2)
    found = torch.ops.mmevm_emulated._visual_scan_plan(*tensors, step, flatten(routes), backward)
    return dict(zip(('states', 'threads', 'slices', 'channel_blocks', 'segments', 'bytes'), found, strict=True))


def resident_warps(card: Card, threads: int, registers: int, shared_bytes: int) -> int:
    """Warps of a kernel that one multiprocessor holds at a time, by the rules of NVIDIA's occupancy calculator."""
    warps = threads // 32
    by_registers = card.registers // 4 // (-(-registers * 32 // 256) * 256) * 4 // warps
    by_bytes = card.bytes // (-(-shared_bytes // 128) * 128 + card.reserved_bytes)
    return warps * min(by_registers, by_bytes, card.threads // threads, card.blocks)


def occupancy(kernels: dict[str, Resources], card: Card) -> dict[str, dict[str, int]]:
    """Warps that the passes of every case have room for on a multiprocessor, and shared memory of their blocks."""
    found = {}
    for name, case in CASES.items():
        for which in ('forward', 'backward'):
            split = plan(card, case, which == 'backward')
            kernel = f'map_half scan_{which}{" output" if which == "forward" else ""} {split["states"]}'
            registers = kernels[kernel]['registers']
            warps = resident_warps(card, split['threads'], registers, split['bytes'])
            found[f'{name}, {which}'] = {'warps': warps, 'block bytes': split['bytes'], 'threads': split['threads']}
    return found


def worse(kernels: dict[str, Resources], table: dict[str, Resources]) -> list[str]:
    """What takes more than the table says."""
    problems = []
    for name, now in kernels.items():
        before = table.get(name)
        if before is None:
            problems.append(f'{name} is not in the table')
            continue
        for what in ('stack', 'stored', 'loaded'):
            if now[what] > before[what]:
                problems.append(f'{name}: {what} {now[what]} bytes instead of {before[what]}')
        warps, warps_before = (65536 // 4 // (-(-r['registers'] * 32 // 256) * 256) * 4 for r in (now, before))
        if warps < warps_before:
            problems.append(f'{name}: {now["registers"]} registers leave {warps} warps instead of {warps_before}')
    return problems


def main() -> int:
    """Compare with the table, or write it."""
    table: dict[str, Any] = {'nvcc': nvcc_release(), 'kernels': {}, 'occupancy': {}}
    for name, card in CARDS.items():
        kernels = table['kernels'][card.architecture] = compile_all(card.architecture)
        table['occupancy'][name] = occupancy(kernels, card)
        print(f'sm_{card.architecture}: {len(kernels)} kernels', flush=True)
    if '--write' in sys.argv:
        TABLE.write_text(json.dumps(table, indent=1) + '\n', encoding='utf-8')
        return 0
    before = json.loads(TABLE.read_text(encoding='utf-8'))
    problems = [f'sm_{a}: {p}' for a, kernels in table['kernels'].items() for p in worse(kernels, before['kernels'][a])]
    for card, cases in table['occupancy'].items():
        for case, now in cases.items():
            warps = before['occupancy'][card][case]['warps']
            if now['warps'] < warps:
                problems.append(f'{card}, {case}: {now["warps"]} warps a multiprocessor instead of {warps}')
    print('\n'.join(problems) or 'nothing is worse than the table')
    return 1 if problems else 0


def nvcc_release() -> str | None:
    """The release of the CUDA toolkit here, such as '13.0', or None."""
    toolkit = _cuda_toolkit.find_cuda_toolkit()
    return None if toolkit is None else '.'.join(map(str, toolkit.version[:2]))


if __name__ == '__main__':
    sys.exit(main())
