"""``python -m mmevm``: the version, and the commands that there are."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import mmevm

MODULES = {
    'mmevm.doctor': 'what is installed, and which operator backends work here',
    'mmevm.zoo': 'released checkpoints: list, show, download, verify, convert',
}
SCRIPTS = {
    'tools/train.py': 'train a detector, segmentor or classifier from a config',
    'tools/test.py': 'evaluate a checkpoint',
    'tools/publish_model.py': 'strip a training checkpoint to what others need',
    'tools/analysis/complexity.py': 'parameters and FLOPs of configs',
    'tools/analysis/erf.py': 'effective receptive fields',
    'tools/analysis/scan_order.py': 'the order in which a network scans an image',
    'tools/make_mini_data.py': 'render miniature COCO, ADE20K and ImageNet',
    'demo/image_demo.py': 'draw what a model finds in images',
}


def commands() -> dict[str, str]:
    """What each command that is here does, by how it is called; an installation has no demo."""
    package = Path(mmevm.__file__).parent
    root = package.parent if (package.parent / 'tools/train.py').is_file() else package / '.mim'
    found = {f'-m {name}': purpose for name, purpose in MODULES.items()}
    for name, purpose in SCRIPTS.items():
        if (root / name).is_file():
            found[os.path.relpath(root / name)] = purpose
    return {f'python {call}': purpose for call, purpose in found.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints them; returns the exit status."""
    parser = argparse.ArgumentParser('python -m mmevm', description='Print the version and the commands there are.')
    parser.add_argument('--version', action='version', version=mmevm.__version__)
    parser.parse_args(argv)
    print(f'mmevm {mmevm.__version__} ({mmevm.__path__[0]})\n')
    found = commands()
    width = max(map(len, found))
    for call, purpose in found.items():
        print(f'  {call:{width}}  {purpose}')
    print('\nEach answers --help.')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
