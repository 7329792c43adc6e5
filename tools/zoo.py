"""Released checkpoints: ``python tools/zoo.py list | show NAME | download NAME | verify FILE | convert IN OUT``."""

from mmevm.cli.zoo import main

if __name__ == '__main__':
    raise SystemExit(main())
