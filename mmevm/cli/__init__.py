"""What ``tools/train.py`` and ``tools/test.py`` do: one pair for detection, segmentation and classification configs."""

from mmevm.cli.test import main as test_main
from mmevm.cli.train import main as train_main

__all__ = ['test_main', 'train_main']
