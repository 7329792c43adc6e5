"""``python -m mmevm``: the version and the available commands."""

import argparse
import os
from collections.abc import Sequence

import mmevm
from mmevm.mim import find_root

MODULES = {
    'mmevm.doctor': 'what is installed, and which operator backends work here',
    'mmevm.zoo': 'released checkpoints: list, show, download, verify, convert',
}
SCRIPTS = {
    'tools/train.py': 'train a detector, segmentor or classifier from a config',
    'tools/test.py': 'evaluate a checkpoint',
    'tools/check_data.py': 'what is in a dataset of your own, and what is wrong with it',
    'tools/tile_data.py': 'cut large images and their boxes into tiles',
    'tools/export.py': 'export a model to one ONNX file',
    'tools/publish_model.py': 'strip a training checkpoint to what others need',
    'tools/analysis/complexity.py': 'parameters and FLOPs of configs',
    'tools/analysis/erf.py': 'effective receptive fields',
    'tools/analysis/scan_order.py': 'the order in which a network scans an image',
    'tools/make_mini_data.py': 'render miniature COCO, ADE20K and ImageNet',
    'demo/image_demo.py': 'draw what a model finds in images',
}


def commands() -> dict[str, str]:
    """Return the purpose of each available command by its command line."""
    root = find_root()
    found = {f'-m {name}': purpose for name, purpose in MODULES.items()}
    for name, purpose in SCRIPTS.items():
        if (root / name).is_file():
            found[os.path.relpath(root / name)] = purpose
    return {f'python {call}': purpose for call, purpose in found.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Print version and commands; return the exit status."""
    parser = argparse.ArgumentParser('python -m mmevm', description='Print the version and the available commands.')
    parser.add_argument('--version', action='version', version=mmevm.__version__)
    parser.parse_args(argv)
    print(f'mmevm {mmevm.__version__} ({mmevm.__path__[0]})\n')
    found = commands()
    width = max(map(len, found))
    for call, purpose in found.items():
        print(f'  {call:{width}}  {purpose}')
    print('\nEach has --help.')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
