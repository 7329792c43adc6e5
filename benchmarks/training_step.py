"""One training step of EVM-T beside PVTv2-B0 and ResNet-18, as backbones and inside a RetinaNet, in one run.

A step is the forward pass in training mode, the backward pass and fused AdamW's step, in float32. The backbones return
feature maps, and their loss is the sum of the maps' means; the RetinaNet is that of ``configs/retinanet_evm_t.py`` with
its own loss for a few boxes. The other backbones are timm's. The process keeps the memory that it frees, as under
``tools/train.py``; ``--return-memory`` leaves glibc's defaults.

The peak is that of torch's CPU allocator, weights, images and the optimizer's state included; see ``memory.py`` for how
it is measured and what it excludes. Peak and time are compared with those of the same network without its scans, which
is what a scan that costs nothing would reach.
"""

import argparse
import runpy
from collections.abc import Callable
from pathlib import Path

try:
    import networks
    import timing
    import torch
    from memory import MIB, allocator_peak, without_scan
    from torch import Tensor, nn

    from mmevm.engine.runner.host_memory import keep_freed_memory
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

MODELS = ('evm_tiny', 'pvt_v2_b0', 'resnet18')
BASE = 'pvt_v2_b0'
"""What the others are compared with."""

PARTS = ('backbone', 'retinanet')
CONFIG = Path(__file__).parents[1] / 'configs/retinanet_evm_t.py'
BOXES = 8

COLUMNS = {
    'part': '{part}',
    'model': '{model}',
    'params, M': '{params:.2f}',
    'median, ms': '{median:.0f}',
    'p25–p75, ms': '{p25:.0f}–{p75:.0f}',
    f'× {BASE}': '{ratio:.2f}',
    'peak, MiB': '{peak_mib:.0f}',
    'peak × without a scan': '{noscan_ratio:.3f}',
    'median × without a scan': '{noscan_time_ratio:.2f}',
}


def retinanet(backbone: nn.Module, widths: list[int]) -> nn.Module:
    """Return the config's RetinaNet around a backbone whose four maps have these widths."""
    import mmdet.models  # noqa: F401
    from mmengine.config import Config
    from mmengine.registry import MODELS as registry

    config = Config.fromfile(CONFIG).model
    config.backbone.init_cfg = None
    config.neck.in_channels = widths
    config.pop('data_preprocessor')
    model = registry.build({'_scope_': 'mmdet', **config})
    model.backbone = backbone
    return model.train()


def detection_loss(model: nn.Module, images: Tensor) -> Tensor:
    """Return a detector's loss for random boxes."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    size = images.shape[-1]
    samples = []
    for _ in images:
        corners = torch.rand(BOXES, 2) * size * 0.7
        boxes = torch.cat([corners, corners + 16 + torch.rand(BOXES, 2) * size * 0.25], dim=1)
        shape = (size, size)
        sample = DetDataSample(metainfo={'img_shape': shape, 'pad_shape': shape, 'ori_shape': shape})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(80, (BOXES,)))
        samples.append(sample)
    losses = model.loss(images, samples)
    return sum(sum(loss) if isinstance(loss, list) else loss for loss in losses.values())


class Step:
    """A training step, which can be called.

    Args:
        model (nn.Module): Network in training mode.
        images (Tensor[B, 3, H, W]): Batch.
        loss (Callable): Of the model and the batch.
    """

    def __init__(self, model: nn.Module, images: Tensor, loss: Callable[[nn.Module, Tensor], Tensor]) -> None:
        self.model, self.images, self.loss = model, images, loss
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def __call__(self) -> None:
        self.loss(self.model, self.images).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def peak(self) -> int:
        """Return the bytes that torch has allocated at most, weights, images and the optimizer's state included."""
        self()
        states = self.optimizer.state.values()
        state = sum(t.nbytes for values in states for t in values.values() if isinstance(t, Tensor))
        return networks.resident(self.model, self.images) + state + allocator_peak(self)


def make_step(part: str, name: str, args: argparse.Namespace, scan: bool = True) -> Step:
    """Build a network and its training step."""
    torch.manual_seed(0)
    backbone = networks.build_maps(name)
    if not scan:
        without_scan(backbone)
    images = torch.randn(args.batch, 3, args.size, args.size)
    if part == 'backbone':
        return Step(backbone, images, lambda model, x: sum(y.mean() for y in model(x)))
    with torch.no_grad():
        widths = [y.shape[1] for y in backbone(torch.zeros(2, 3, 64, 64))]
    return Step(retinanet(backbone, widths), images, detection_loss)


def measure(args: argparse.Namespace) -> list[timing.Row]:
    """Time each part's networks in one interleaved run, then measure the peaks."""
    rows = []
    for part in args.parts:
        steps = {name: make_step(part, name, args) for name in args.models}
        bare = {name: make_step(part, name, args, scan=False) for name in args.models if networks.is_ours(name)}
        lines = steps | {f'{name} without a scan': step for name, step in bare.items()}
        times = timing.interleaved(lines, args.repeats, args.warmup)
        for name, step in steps.items():
            params = sum(p.numel() for p in step.model.parameters()) / 1e6
            row = {'part': part, 'model': name, 'params': params, 'times': times[name], 'peak': step.peak()}
            row |= timing.summarise(times[name]) | {'peak_mib': row['peak'] / MIB}
            if name in bare:
                row['noscan_ratio'] = row['peak'] / bare[name].peak()
                row['noscan_time_ratio'] = row['median'] / timing.summarise(times[f'{name} without a scan'])['median']
            rows.append(row)
    medians = {row['part']: row['median'] for row in rows if row['model'] == BASE}
    for row in rows:
        if row['part'] in medians:
            row['ratio'] = row['median'] / medians[row['part']]
    return rows


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--models', nargs='+', default=MODELS, help='EVMs and names of timm (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='(default: %(default)s)')
    parser.add_argument('--size', type=int, default=320, help='image side (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=2, help='images (default: %(default)s)')
    parser.add_argument('--return-memory', action='store_true', help='return freed memory to the system between steps')
    timing.add_arguments(parser, repeats=11, warmup=1)
    parser.set_defaults(threads=1)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write training_step.md and training_step.json."""
    args = parse_args()
    timing.set_threads(args.threads)
    keeps = not args.return_memory and keep_freed_memory()
    rows = measure(args)
    title = f'Training step, {args.size} × {args.size}, batch {args.batch}, {torch.get_num_threads()} threads'
    note = (
        f'Forward and backward pass and AdamW, float32, random weights; {args.repeats} rounds, each with one '
        'timed call of every line of a part, in shuffled order. Peak memory: weights, images, the state of AdamW and '
        "what torch allocates during the step; oneDNN's scratch memory and the allocator's gaps come on top. "
        f'The process {"keeps" if keeps else "may return"} what it frees.'
    )
    timing.save(args.out, 'training_step', title, rows, COLUMNS, [note])


if __name__ == '__main__':
    main()
