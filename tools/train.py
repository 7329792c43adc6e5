"""Train from a config: ``python tools/train.py CONFIG [--work-dir DIR] [--amp] [--resume] [--cfg-options …]``."""

import _signals  # noqa: F401

from mmevm.cli import train_main

if __name__ == '__main__':
    raise SystemExit(train_main())
