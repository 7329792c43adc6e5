"""The atrous selective-scan mixer."""

from torch import Tensor

from mmevm.layers.phase_projection import project_phases
from mmevm.layers.scan_mixer import ScanMixer
from mmevm.ops import es2d_scan


class ES2D(ScanMixer):
    """Token mixer around the atrous selective scan (ES2D, arXiv 2403.09977, section 4.1).

    Phases whose offsets agree modulo 2 share a parameter set.

    Args:
        channels (int): C; the inner width D is ``expand * C``.
        step_size (int): Distance p between neighbouring cells of a phase, at least 2.
        d_state (int): States N per channel.
        expand (float): D / C.
    """

    def __init__(self, channels: int, step_size: int = 2, d_state: int = 16, expand: float = 2.0) -> None:
        if step_size < 2:
            raise ValueError(f'`step_size` must be at least 2 for the atrous scan, got {step_size}')
        super().__init__(channels, d_state, expand)
        self.step_size = step_size

    def scan(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, D]."""
        return es2d_scan(x, self.project(x), **self.scan_parameters(x), step=self.step_size)

    def project(self, x: Tensor) -> Tensor:
        """Args: x (Tensor[B, H, W, D]). Returns: Tensor[B, H, W, R + 2N], by the parameter set of each cell's phase."""
        return project_phases(x, self.x_proj_weight.to(x.dtype), self.step_size)
