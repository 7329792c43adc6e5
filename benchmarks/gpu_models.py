"""Whole classifiers on a GPU: training steps, inference and peak memory, and cost per pixel over resolution."""

import gc
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import networks
import timing
import torch
import torch.nn.functional as F
from composed import SelectiveScan, compose
from gpu_timing import Run, interleaved, synchronize
from torch import Tensor, nn

COUNTERPARTS = ('regnety_008', 'pvt_v2_b0', 'mobilevit_xs', 'mobilevit_s', 'swin_tiny_patch4_window7_224')
VARIANTS = ('evm_tiny', 'evm_small', 'evm_base')
COMPOSED_OVER_RESOLUTION = ('evm_tiny', 'vmamba_tiny')
CLASSES = 1000

MODEL_COLUMNS = {
    'model': '{model}',
    'scan': '{scan}',
    'layout': '{layout}',
    'params, M': '{params:.2f}',
    'training step, ms': '{training:.2f}',
    'p25–p75, ms': '{training_p25:.2f}–{training_p75:.2f}',
    'training, images/s': '{training_rate:.0f}',
    'peak memory, MiB': '{peak_mib:.0f}',
    'inference, ms': '{inference:.2f}',
    'inference, images/s': '{inference_rate:.0f}',
    'composed / fused step': '{training_ratio:.2f}',
    'fused / composed peak': '{memory_ratio:.2f}',
}

RESOLUTION_COLUMNS = {
    'model': '{model}',
    'scan': '{scan}',
    'resolution': '{resolution}²',
    'batch': '{batch}',
    'inference, ms': '{median:.2f}',
    'images/s': '{rate:.0f}',
    'peak memory, MiB': '{peak_mib:.0f}',
    'ns / pixel': '{per_pixel:.3f}',
    '× the smallest': '{relative:.2f}',
}


@dataclass(frozen=True)
class Line:
    """A network in one setting.

    Attributes:
        model (str): Family and variant of ours, or a name of timm's.
        scan (str): 'fused' or 'composed' for the former, '' for timm's.
        layout (str): Key of ``networks.LAYOUTS``.
    """

    model: str
    scan: str
    layout: str

    @property
    def name(self) -> str:
        """A name of its own."""
        return ' '.join(filter(None, (self.model, self.scan, self.layout)))

    def row(self) -> timing.Row:
        """Return its fields, for a table."""
        return {'model': self.model, 'scan': self.scan or '–', 'layout': self.layout}


@dataclass
class Setting:
    """Where and how the networks are measured.

    Attributes:
        device (torch.device): Where.
        dtype (torch.dtype): Of autocast.
        scan (SelectiveScan): What the composed path scans with.
        repeats (int): Rounds.
        seconds (float): Limit of the rounds of one table.
    """

    device: torch.device
    dtype: torch.dtype
    scan: SelectiveScan
    repeats: int
    seconds: float

    def autocast(self) -> AbstractContextManager:
        """Mixed precision on the device."""
        return torch.autocast(self.device.type, self.dtype)

    def build(self, line: Line, resolution: int) -> nn.Module:
        """Return a network with random weights on the device, in evaluation mode."""
        with self.device:  # where a large network is initialised fast
            model = networks.build(line.model, resolution)
        if line.scan == 'composed':
            compose(model, self.scan)
        return networks.place(model, line.layout, self.device)

    def images(self, line: Line, batch: int, resolution: int) -> Tensor:
        """Random images in the network's layout."""
        images = torch.randn(batch, 3, resolution, resolution, device=self.device)
        return images.contiguous(memory_format=networks.LAYOUTS[line.layout])


def lines(
    models: Sequence[str], composed: Container[str], layouts: Sequence[str] = tuple(networks.LAYOUTS)
) -> list[Line]:
    """Return the cases: ours in contiguous layout, those in ``composed`` with both scans; timm's in each layout."""
    found = []
    for model in models:
        if networks.is_ours(model):
            scans = ('fused', 'composed') if model in composed else ('fused',)
            found += [Line(model, scan, 'contiguous') for scan in scans]
        else:
            found += [Line(model, '', layout) for layout in layouts]
    return found


def training_step(model: nn.Module, images: Tensor, setting: Setting) -> Run:
    """Run one step: forward pass under autocast, scaled loss, backward pass, AdamW."""
    model.train()
    labels = torch.randint(CLASSES, (len(images),), device=setting.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.04, fused=True)
    scaler = torch.amp.GradScaler(setting.device.type, enabled=setting.dtype == torch.float16)

    def step() -> None:
        with setting.autocast():
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def peak_memory(make_step: Callable[[], Run], device: torch.device) -> tuple[Run, float | None]:
    """Build and run a training step; return its peak of allocated memory in bytes beyond what was allocated before.

    The peak includes parameters, gradients, the optimizer's state and the images. On the CPU it is None.
    """
    gc.collect()
    if device.type != 'cuda':
        return make_step(), None
    before = torch.cuda.memory_allocated(device)
    step = make_step()
    for _ in range(2):  # the first one allocates the optimizer's state and selects convolution algorithms
        step()
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    synchronize(device)
    return step, torch.cuda.max_memory_allocated(device) - before


def inference_peak(run: Run, device: torch.device) -> int | None:
    """Return the peak of allocated memory in bytes beyond what was allocated before the pass; None on the CPU."""
    if device.type != 'cuda':
        return None
    run()  # selects convolution algorithms
    synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def inference(model: nn.Module, images: Tensor, setting: Setting) -> Run:
    """Return the forward pass in evaluation mode under autocast."""
    model.eval()

    def run() -> Tensor:
        with torch.inference_mode(), setting.autocast():
            return model(images)

    return run


def measure_models(models: list[str], resolution: int, batch: int, setting: Setting) -> list[timing.Row]:
    """Training, memory and inference of every network, each timed in turn with all others."""
    everything = lines(models, composed=[name for name in models if not name.startswith('vim_')])
    rows, built, steps = {}, {}, {}
    for line in everything:
        model = setting.build(line, resolution)
        params = sum(p.numel() for p in model.parameters()) / 1e6
        images = setting.images(line, batch, resolution)
        weights = networks.resident(model, images)
        steps[line.name], peak = peak_memory(partial(training_step, model, images, setting), setting.device)
        built[line.name] = model, images
        row = line.row() | {'params': params, 'batch': batch}
        # The network and its images were allocated before the step was built.
        rows[line.name] = row | {'peak': None if peak is None else peak + weights}
    times = interleaved(steps, setting.device, setting.repeats, 2, setting.seconds)
    _add(rows, 'training', times)
    steps.clear()
    forward = {name: inference(model, images, setting) for name, (model, images) in built.items()}
    _add(rows, 'inference', interleaved(forward, setting.device, setting.repeats, 2, setting.seconds))
    found = list(rows.values())
    _compare(found)
    return found


def _add(rows: dict[str, timing.Row], which: str, times: dict[str, list[float]]) -> None:
    """Write medians, quartiles, images per second and all samples into the rows."""
    for name, row in rows.items():
        summary = timing.summarise(times[name])
        row |= {which: summary['median'], f'{which}_p25': summary['p25'], f'{which}_p75': summary['p75']}
        row[f'{which}_rate'] = 1e3 * row['batch'] / summary['median']
        row[f'{which}_times'] = times[name]


def _compare(rows: list[timing.Row]) -> None:
    """Divide the composed path's step by the fused one's, and the fused one's peak by the composed one's."""
    composed = {row['model']: row for row in rows if row['scan'] == 'composed'}
    for row in rows:
        if row['peak'] is not None:
            row['peak_mib'] = row['peak'] / 2**20
        if row['scan'] == 'fused' and row['model'] in composed:
            other = composed[row['model']]
            row['training_ratio'] = other['training'] / row['training']
            row['inference_ratio'] = other['inference'] / row['inference']
            if row['peak'] is not None:
                row['memory_ratio'] = row['peak'] / other['peak']


def measure_resolutions(models: list[str], resolutions: list[int], pixels: int, setting: Setting) -> list[timing.Row]:
    """Measure inference over image sizes, with about the same number of pixels per batch.

    timm's networks run in the layout that suits convolutions on a GPU, channels_last.
    """
    rows, callables = [], {}
    for resolution in resolutions:
        batch = max(1, round(pixels / resolution**2))
        for line in lines(models, COMPOSED_OVER_RESOLUTION, layouts=('channels_last',)):
            model, images = setting.build(line, resolution), setting.images(line, batch, resolution)
            run = callables[str(len(rows))] = inference(model, images, setting)
            peak = inference_peak(run, setting.device)
            row = line.row() | {'resolution': resolution, 'batch': batch}
            rows.append(row if peak is None else row | {'peak_mib': (peak + networks.resident(model, images)) / 2**20})
    times = interleaved(callables, setting.device, setting.repeats, 2, setting.seconds)
    for i, row in enumerate(rows):
        row |= timing.summarise(times[str(i)]) | {'times': times[str(i)]}
    timing.add_rates(rows)
    return rows
