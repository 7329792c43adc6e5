"""Flags of ``tools/train.py`` and ``tools/test.py``, the same as MMDetection's."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from mmevm.engine.options import add_cfg_options


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--work-dir', type=os.path.expanduser, help='folder for logs and results (default: work_dirs/<config name>)'
    )
    add_cfg_options(
        parser,
        'changes to the config, e.g. train_dataloader.batch_size=4 or model.backbone.out_indices="(0,1,2,3)"; '
        'data_root=PATH moves every data loader and evaluator to another folder',
    )
    parser.add_argument(
        '--data',
        metavar='PATH',
        help="your own dataset instead of the config's: COCO, YOLO, Pascal VOC, class folders, or images with "
        'masks (docs/own_data.md)',
    )
    parser.add_argument(
        '--skip-broken',
        action='store_true',
        help='leave out images that are missing or cannot be read, and with --data objects without area or outside of '
        'their images; the log lists them',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how a distributed run was started (default: none)',
    )
    # torchrun's predecessor passes this flag; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    args = vars(parser.parse_args(argv))
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank')))
    return args


def parse_train_args(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse the arguments of ``tools/train.py`` (default: the process's own) to those of :func:`~.train.train`."""
    parser = argparse.ArgumentParser(description='Train a detector, segmentor or classifier from a config file.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from auto_scale_lr.base_batch_size to the actual total batch',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from a checkpoint; without a path, from the newest one in the work directory',
    )
    _add_common(parser)
    return _parse(parser, argv)


def parse_test_args(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse the arguments of ``tools/test.py`` (default: the process's own) to those of :func:`~.evaluate.evaluate`."""
    parser = argparse.ArgumentParser(description='Evaluate a trained detector, segmentor or classifier.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL, or an exported model (.onnx)')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a pickle file')
    parser.add_argument('--show', action='store_true', help='show each image with its predictions in a window')
    parser.add_argument('--show-dir', help='folder for images with predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show keeps an image (default: 2)')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    _add_common(parser)
    return _parse(parser, argv)
