"""Released checkpoints: ``python -m mmevm.zoo list | show NAME | download NAME | verify FILE | convert IN OUT``."""

from mmevm.cli.zoo import main

if __name__ == '__main__':
    raise SystemExit(main(prog='python -m mmevm.zoo'))
