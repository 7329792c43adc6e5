"""Which token sees which in ES2D, SS2D and Vim: ``python tools/analysis/scan_order.py --out scan_order.png``."""

from mmevm.cli.scan_order import main

if __name__ == '__main__':
    raise SystemExit(main())
