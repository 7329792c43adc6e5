"""The atrous scan on a GPU: the fused operator against the composed path and against the device's floors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import timing
import torch
from composed import SelectiveScan, composed_scan
from gpu_timing import Rates, Run, graphed, interleaved
from torch import Tensor

from mmevm.backbones import EfficientVMamba
from mmevm.layers.mixers import ES2D
from mmevm.ops import backends, es2d_routes, es2d_scan
from mmevm.ops.routes import flatten

# Two ways to round in half precision may differ by this much, relative to the largest value.
AGREEMENT = 3e-2

PATH_COLUMNS = {
    'variant': '{variant}',
    'stage': '{stage}',
    'image': '{height} × {width}',
    'batch': '{batch}',
    'forward, ms': '{forward:.3f}',
    'composed, ms': '{composed_forward:.3f}',
    'composed / fused': '{forward_ratio:.2f}',
    'in CUDA graphs, ms': '{graph:.3f}',
    'composed in CUDA graphs, ms': '{composed_graph:.3f}',
    'composed / fused, in graphs': '{graph_ratio:.2f}',
    'forward + backward, ms': '{training:.3f}',
    'composed forward + backward, ms': '{composed_training:.3f}',
    'composed / fused, both': '{training_ratio:.2f}',
}

BACKEND_COLUMNS = {
    'variant': '{variant}',
    'stage': '{stage}',
    'image': '{height} × {width}',
    'batch': '{batch}',
    'backend': '{backend}',
    'segments': '{segments}',
    'forward, ms': '{forward:.3f}',
    'in a CUDA graph, ms': '{graph:.3f}',
    'forward + backward, ms': '{training:.3f}',
    'floor of bytes, ms': '{bytes_floor:.3f}',
    'floor of exponentials, ms': '{exponentials_floor:.3f}',
    'forward / binding floor': '{floor_ratio:.2f}',
}


@dataclass(frozen=True)
class Case:
    """The scan of one stage of one variant for a batch of images.

    Attributes:
        variant (str): 'tiny', 'small' or 'base'.
        stage (int): 1 or 2.
        height, width (int): Of the images, in pixels.
        batch (int): Images.
    """

    variant: str
    stage: int
    height: int
    width: int
    batch: int

    @property
    def channels(self) -> int:
        """Width of the stage; the scan's is twice that."""
        return EfficientVMamba.arch_zoo[self.variant]['dims'][self.stage - 1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the stage's map."""
        H, W = self.height // 4, self.width // 4
        for _ in range(self.stage - 1):
            H, W = -(-H // 2), -(-W // 2)
        return H, W

    def row(self) -> timing.Row:
        """Return its fields, for a table."""
        return {name: getattr(self, name) for name in ('variant', 'stage', 'height', 'width', 'batch')}


@dataclass
class Bench:
    """Where and how the cases are measured.

    Attributes:
        device (torch.device): Where.
        dtype (torch.dtype): Of the maps, and of autocast.
        scan (SelectiveScan): What the composed path scans with.
        rates (Rates): For the floors.
        repeats (int): Rounds per case.
        seconds (float): Limit of a case's rounds.
    """

    device: torch.device
    dtype: torch.dtype
    scan: SelectiveScan
    rates: Rates
    repeats: int
    seconds: float


def backend_names(device: torch.device) -> list[str]:
    """Return the backends besides the reference that serve a device, first the one that 'auto' takes."""
    states = {s.name for s in backends.status() if s.available and s.device == device.type}
    return [name for name in backends.BACKENDS if name in states - {'reference'}]


def scan_inputs(op: ES2D, x: Tensor) -> dict[str, Tensor]:
    """Return the operator's arguments in a block's forward pass, as leaves that require gradients."""
    K, D, N = op.n_sets, op.d_inner, op.d_state
    tensors = {
        'x': x,
        'x_dbl': op.project(x),
        'dt_weight': op.dt_projs_weight,
        'A': -torch.exp(op.A_logs).view(K, D, N),
        'Ds': op.Ds.view(K, D),
        'dt_bias': op.dt_projs_bias,
    }
    return {name: tensor.detach().contiguous().requires_grad_() for name, tensor in tensors.items()}


def passes(function: Callable[[], Tensor], leaves: list[Tensor]) -> dict[str, Run]:
    """Return the forward pass without gradients, and the forward with the backward pass."""
    dy = torch.randn_like(function())

    def forward() -> Tensor:
        with torch.inference_mode():
            return function()

    return {'forward': forward, 'training': lambda: torch.autograd.grad(function(), leaves, dy)}


def check_agreement(fused: Tensor, composed: Tensor) -> None:
    """Raise RuntimeError unless both paths compute the same."""
    error = ((fused.float() - composed.float()).abs().max() / composed.abs().max()).item()
    if not error < AGREEMENT:
        raise RuntimeError(f'the fused and the composed scan differ by {error:.2g} of the largest value')


def paths(op: ES2D, x: Tensor, channels_first: Tensor, bench: Bench) -> dict[str, Run]:
    """Return the passes of the fused and of the composed path, and their forward passes as CUDA graphs."""
    parameters = [op.x_proj_weight, op.dt_projs_weight, op.dt_projs_bias, op.A_logs, op.Ds]
    found = {}
    for name, function, image in (
        ('fused', op.scan, x),
        ('composed', partial(composed_scan, op, scan=bench.scan), channels_first),
    ):
        for which, run in passes(partial(function, image), [image, *parameters]).items():
            found[f'{name} {which}'] = run
        try:
            graph = graphed(found[f'{name} forward'], bench.device)
        except RuntimeError as error:  # the composed path has other people's code
            print(f'the {name} path cannot be captured in a CUDA graph: {error}')
            graph = None
        if graph:
            found[f'{name} graph'] = graph
    check_agreement(found['fused forward'](), found['composed forward']())
    return found


def callables(case: Case, bench: Bench) -> dict[str, Run]:
    """Everything that is timed for a case, named ``<path or backend> <pass>``."""
    op = ES2D(case.channels).to(bench.device)
    x = torch.randn(case.batch, *case.size, op.d_inner, device=bench.device, dtype=bench.dtype)
    # Each path gets the map in the layout of its own convolution's output: channels last, or upstream's channels first.
    channels_first = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1).requires_grad_()
    x.requires_grad_()
    found = paths(op, x, channels_first, bench)
    inputs = scan_inputs(op, x)
    for name in backend_names(bench.device):
        scan = partial(es2d_scan, **inputs, backend=name)
        for which, run in passes(scan, list(inputs.values())).items():
            found[f'{name} {which}'] = run
        graph = graphed(found[f'{name} forward'], bench.device)
        if graph:
            found[f'{name} graph'] = graph
    return found


def split_of(inputs: dict[str, Tensor], backward: bool = False) -> list[int]:
    """Return how the CUDA kernels split a scan; see ``Scan::plan`` in csrc/cuda/launch.h."""
    return torch.ops.mmevm._visual_scan_plan(*_operator_arguments(inputs), flatten(es2d_routes()), backward)


def _operator_arguments(i: dict[str, Tensor]) -> tuple[Any, ...]:
    """The operator's arguments but for the routes."""
    return i['x'], i['x_dbl'].unsqueeze(3), i['dt_weight'], i['dt_bias'], i['A'], i['Ds'], 2


def count_segments(case: Case, bench: Bench, backend: str) -> int:
    """Return into how many segments a backend cuts the routes of a case on the way forward."""
    if bench.device.type != 'cuda':
        return 1
    op = ES2D(case.channels).to(bench.device)
    x = torch.empty(case.batch, *case.size, op.d_inner, device=bench.device, dtype=bench.dtype)
    inputs = scan_inputs(op, x)
    if backend == 'compiled':
        return split_of(inputs)[4]
    module = import_module('mmevm.ops.triton.visual_scan')
    return module.count_segments(*_operator_arguments(inputs), es2d_routes())


def measure_case(case: Case, bench: Bench) -> tuple[timing.Row, list[timing.Row]]:
    """Time a case.

    Returns:
        tuple[Row, list[Row]]: The fused against the composed path, projections included; and, for each backend, the
        operator alone against the floors.
    """
    # Without the cache every call casts its weights, as every training step does.
    with torch.autocast(bench.device.type, bench.dtype, cache_enabled=False):
        times = interleaved(callables(case, bench), bench.device, bench.repeats, 3, bench.seconds)
    medians = {name: timing.summarise(values)['median'] for name, values in times.items()}
    row = case.row() | {'samples': len(times['fused forward'])}
    for which in ('forward', 'graph', 'training'):
        fused, composed = medians.get(f'fused {which}'), medians.get(f'composed {which}')
        ratio = composed / fused if fused and composed else None
        row |= {which: fused, f'composed_{which}': composed, f'{which}_ratio': ratio}
    row['times'] = {name: values for name, values in times.items() if name.startswith(('fused', 'composed'))}

    op = ES2D(case.channels)
    sizes = (case.batch, *case.size, op.d_inner, op.d_state, op.dt_rank, bench.dtype.itemsize)
    lines = []
    for name in backend_names(bench.device):
        segments = count_segments(case, bench, name)
        floors = bench.rates.es2d_floors(*sizes, segments)
        line = case.row() | {'backend': name, 'segments': segments}
        line |= {'bytes_floor': floors[0], 'exponentials_floor': floors[1]}
        line |= {which: medians.get(f'{name} {which}') for which in ('forward', 'graph', 'training')}
        # Floors do not include launches from Python: if a graph could be captured, its replay counts.
        line['floor_ratio'] = (line['graph'] or line['forward']) / max(floor for floor in floors if floor)
        line['times'] = {key: values for key, values in times.items() if key.startswith(name)}
        lines.append(line)
    return row, lines
