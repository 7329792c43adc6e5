"""Make a checkpoint ready for others: ``python tools/publish_model.py CONFIG CHECKPOINT [--url BASE] …``."""

from mmevm.cli.publish import main

if __name__ == '__main__':
    raise SystemExit(main())
