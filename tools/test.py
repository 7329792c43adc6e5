"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT [--out FILE.pkl] [--show-dir DIR] [--tta] …``."""

import _signals  # noqa: F401

from mmevm.cli import test_main

if __name__ == '__main__':
    raise SystemExit(test_main())
