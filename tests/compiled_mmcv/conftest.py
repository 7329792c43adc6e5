"""These tests need an mmcv with compiled operators: `make test-compiled-mmcv`. Elsewhere they are not collected."""

from mmevm.mmcv_ext import is_compiled

if not is_compiled():
    collect_ignore_glob = ['test_*.py']
