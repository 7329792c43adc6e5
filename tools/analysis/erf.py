"""Effective receptive fields: ``python tools/analysis/erf.py EfficientVMamba:tiny VMamba:tiny Vim:tiny``."""

from mmevm.cli.erf import main

if __name__ == '__main__':
    raise SystemExit(main())
