"""Parameters, FLOPs and activations: ``python tools/analysis/complexity.py CONFIG… | --table``."""

from mmevm.cli.complexity import main

if __name__ == '__main__':
    raise SystemExit(main())
