"""These tests need an mmcv with compiled operators: `make test-compiled-mmcv`. Elsewhere they are not collected."""

from mmevm.mmcv_ext import find_extension

extension = find_extension()
if extension is None or extension.suffix == '.py':
    collect_ignore_glob = ['test_*.py']
