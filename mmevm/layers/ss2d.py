"""The mixer that scans the whole map in four directions."""

import torch.nn.functional as F
from torch import Tensor

from mmevm.layers.scan_mixer import ScanMixer
from mmevm.ops import Route, visual_scan

# Along the rows, down the columns, and both from the last cell to the first: the order of the checkpoints' sets.
ROUTES = [Route(0, 0, k % 2 == 1, k >= 2, parameters=k, projection=k) for k in range(4)]


class SS2D(ScanMixer):
    """Token mixer around the cross scan (SS2D, VMamba, arXiv 2401.10166, section 4.2).

    Each of the four routes over the whole map has a parameter set of its own; their results are summed.
    """

    def scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D]."""
        return visual_scan(x, self.project(x), **self.scan_parameters(x), routes=ROUTES)

    def project(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, 4, R + 2N], one projection for each route."""
        return F.linear(x, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (self.n_sets, -1))
