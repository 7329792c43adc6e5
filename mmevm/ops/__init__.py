"""Selective-scan operators.

Every operator has a ``reference`` backend in plain PyTorch, which is the specification, a ``compiled`` one in the
extension ``mmevm._C``, and one in ``triton``. ``backend='auto'`` takes the fastest that serves the tensors.
"""

from mmevm.ops.routes import Route, es2d_routes
from mmevm.ops.selective_scan import selective_scan
from mmevm.ops.visual_scan import es2d_scan, visual_scan

__all__ = ['Route', 'es2d_routes', 'es2d_scan', 'selective_scan', 'visual_scan']
