"""Detectors trained from random weights on miniature COCO, each for the same CPU time.

    python benchmarks/equal_time.py retinanet_evm_t rtmdet_evm_t --threads 1 --seconds 300

All of them share the data, batch size, optimizer and augmentation of configs/demo_retinanet_evm_t_mini.py. What counts
is the CPU time of the process: data, forward and backward pass, and optimizer. The learning rate falls with it along a
half cosine, so that every run has a complete schedule. Start and evaluation are not counted. The data is rendered by
``python tools/make_mini_data.py --out data/mini --only coco``.
"""

import argparse
import math
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import timing
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS, init_default_scope
    from mmengine.runner import Runner

    import mmevm  # noqa: F401  registers the backbones
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / 'configs/demo_retinanet_evm_t_mini.py'
WARMUP = 60
"""Iterations over which the learning rate rises."""

COLUMNS = {
    'detector': '{detector}',
    'params, M': '{params:.2f}',
    'iterations': '{iterations}',
    'epochs': '{epochs:.1f}',
    'CPU time, s': '{cpu:.0f}',
    'wall time, s': '{wall:.0f}',
    'AP': '{ap:.3f}',
    'AP50': '{ap50:.3f}',
}


def retinanet(channels: list[int], **backbone: Any) -> Callable[[Config], None]:
    """Return what gives the base config another backbone, with maps of these widths."""

    def change(cfg: Config) -> None:
        cfg.model.backbone = backbone
        cfg.model.neck.in_channels = channels

    return change


def rtmdet(cfg: Config) -> None:
    """Give the base config RTMDet-EVM-T as its model."""
    cfg.model = Config.fromfile(ROOT / 'configs/rtmdet_evm_t.py').model
    cfg.model.backbone.update(init_cfg=None, drop_path_rate=0.0)
    # The levels share the convolutions of the head.
    cfg.optim_wrapper.paramwise_cfg.bypass_duplicate = True


DETECTORS: dict[str, Callable[[Config], None]] = {
    'retinanet_evm_t': lambda cfg: None,
    'rtmdet_evm_t': rtmdet,
    # As in mmdet's retinanet_pvtv2-b0_fpn_1x_coco.
    'retinanet_pvt_v2_b0': retinanet(
        [32, 64, 160, 256], type='PyramidVisionTransformerV2', embed_dims=32, num_layers=[2, 2, 2, 2]
    ),
    # As in mmdet's retinanet_r18_fpn_1x_coco, with batch norms that learn, as they have to from random weights.
    'retinanet_r18': retinanet(
        [64, 128, 256, 512],
        type='ResNet',
        depth=18,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
    ),
}
"""What each detector changes in the base config."""


@HOOKS.register_module(force=True)
class CpuBudgetHook(Hook):
    """Ends a training run after some CPU time of the process, along which the learning rate falls.

    Args:
        seconds (float): The budget.

    Attributes:
        cpu (float): CPU seconds that were used.
        wall (float): Seconds on the clock.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def before_train(self, runner: Runner) -> None:
        """Start the clocks."""
        self.rates = [group['lr'] for group in runner.optim_wrapper.param_groups]
        self.start, self.begin = time.process_time(), time.perf_counter()
        self.cpu = self.wall = 0.0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the learning rates."""
        done = min(self.cpu / self.seconds, 1)
        factor = min((runner.iter + 1) / WARMUP, 1) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        for group, rate in zip(runner.optim_wrapper.param_groups, self.rates, strict=True):
            group['lr'] = factor * rate

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Read the clocks, and stop where the budget is used up."""
        self.cpu, self.wall = time.process_time() - self.start, time.perf_counter() - self.begin
        runner.train_loop.stop_training = self.cpu >= self.seconds


def read_config(name: str, seconds: float, data_root: Path, work_dir: Path) -> Config:
    """Return the config of a detector's training run."""
    cfg = Config.fromfile(BASE)
    DETECTORS[name](cfg)
    cfg.work_dir = str(work_dir / name)
    for phase in ('train', 'val'):
        loader = cfg[f'{phase}_dataloader']
        # In this process, so that reading counts.
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f'{data_root}/'
    cfg.val_evaluator.ann_file = str(data_root / 'annotations/instances_val2017.json')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=10**6, val_interval=10**6)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.param_scheduler = None
    cfg.custom_hooks = [dict(type='CpuBudgetHook', seconds=seconds)]
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.logger.interval = 100
    cfg.log_processor = dict(by_epoch=False)
    cfg.randomness = dict(seed=0)
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg.pop(key)
    return cfg


def train(name: str, seconds: float, data_root: Path, work_dir: Path) -> timing.Row:
    """Train and evaluate a detector; its weights are saved as ``last.pth``."""
    cfg = read_config(name, seconds, data_root, work_dir)
    init_default_scope('mmdet')
    runner = Runner.from_cfg(cfg)
    runner.train()
    (budget,) = (hook for hook in runner.hooks if isinstance(hook, CpuBudgetHook))
    runner.save_checkpoint(cfg.work_dir, 'last.pth', save_optimizer=False, save_param_scheduler=False)
    cfg.dump(Path(cfg.work_dir) / 'config.py')
    metrics = runner.val_loop.run()
    return {
        'detector': name,
        'params': sum(p.numel() for p in runner.model.parameters()) / 1e6,
        'iterations': runner.iter,
        'epochs': runner.iter * cfg.train_dataloader.batch_size / len(runner.train_dataloader.dataset),
        'cpu': budget.cpu,
        'wall': budget.wall,
        # COCO's metric has no entries where nothing was found.
        'ap': metrics.get('coco/bbox_mAP', 0.0),
        'ap50': metrics.get('coco/bbox_mAP_50', 0.0),
    }


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('detectors', nargs='*', metavar='NAME', help=f'of {", ".join(DETECTORS)} (default: all)')
    parser.add_argument('--seconds', type=float, default=300, help='CPU time of each (default: %(default)s)')
    parser.add_argument('--data-root', type=Path, default=Path('data/mini/coco'), help='default: %(default)s')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/equal_time'), help='default: %(default)s')
    parser.add_argument('--threads', type=int, default=1, help='default: %(default)s')
    parser.add_argument('--out', type=Path, default=timing.RESULTS, help='folder for the results')
    args = parser.parse_args()
    if unknown := set(args.detectors) - set(DETECTORS):
        parser.error(f'unknown detectors {", ".join(sorted(unknown))}; expected some of {", ".join(DETECTORS)}')
    if not (args.data_root / 'annotations').is_dir():
        parser.error(f'{args.data_root} is not there: python tools/make_mini_data.py --out data/mini --only coco')
    return args


def main() -> None:
    """Train one after the other, and write equal_time.md and equal_time.json."""
    args = parse_args()
    timing.set_threads(args.threads)
    rows = [
        train(name, args.seconds, args.data_root.absolute(), args.work_dir.absolute())
        for name in args.detectors or DETECTORS
    ]
    title = f'Detectors on miniature COCO after {args.seconds:g} seconds of CPU time'
    timing.save(args.out, 'equal_time', title, rows, COLUMNS)


if __name__ == '__main__':
    main()
