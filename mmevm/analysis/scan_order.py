"""Which token sees which in a scan, measured on the operator itself.

Nothing here says in which order a route walks. Every route is run alone through :func:`mmevm.ops.visual_scan`, and its
Jacobian tells which inputs reach which outputs; a token's place in the walk is the number of tokens that it sees.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmevm.layers import mixers, vim
from mmevm.layers.vim import middle
from mmevm.ops import Route, es2d_routes, visual_scan

# So near to zero that no state fades below what float64 can tell from nothing.
_DECAY = -1e-6


@dataclass(frozen=True)
class Scan:
    """A scan of a backbone.

    Attributes:
        backbone (str): Whose scan it is.
        routes (list[Route]): As the layers hand them to the operator.
        step (int): As the operator's.
        column (bool): The map's tokens are one column, row after row, with the class token in the middle.
    """

    backbone: str
    routes: list[Route]
    step: int = 1
    column: bool = False

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The map that the operator sees, of the ``height * width`` tokens and perhaps the class token."""
        return (1, height * width + 1) if self.column else (height, width)

    def token(self, height: int, width: int, row: int, col: int) -> int:
        """The index of a cell's token among all tokens."""
        index = row * width + col
        return index + (self.column and index >= middle((height, width)))


SCANS = {
    'ES2D': Scan('EfficientVMamba', es2d_routes(2), step=2),
    'SS2D': Scan('VMamba', mixers.ROUTES),
    'Vim': Scan('Vim', vim.ROUTES, column=True),
}
"""The scans of the three backbones."""


def reach(scan: Scan, height: int, width: int) -> np.ndarray:
    """Measures which tokens' inputs reach which tokens' outputs through each route.

    Args:
        scan (Scan): The scan.
        height (int): Rows H of the map, at least 1.
        width (int): Columns W of the map, at least 1.

    Returns:
        ndarray[K, T, T]: bool; ``[k, i, j]`` says whether token i's output depends on token j's input through route k.
        T is H * W, and one more where there is a class token.

    Raises:
        ValueError: If the map has no cells.
    """
    if height < 1 or width < 1:
        raise ValueError(f'the map must have at least one row and one column, got {height} x {width}')
    shape = scan.shape(height, width)
    return np.stack([_reach_of_route(route, scan, shape) for route in scan.routes])


def _reach_of_route(route: Route, scan: Scan, shape: tuple[int, int]) -> np.ndarray:
    """One channel, one state, and only positive weights, so that nothing cancels. Returns: bool ndarray[T, T]."""
    sets, projections = (1 + max(getattr(r, field) for r in scan.routes) for field in ('parameters', 'projection'))
    ones = torch.ones(1, *shape, projections, 3, dtype=torch.float64)
    dt_weight = torch.ones(sets, 1, 1, dtype=torch.float64)

    def run(x: Tensor) -> Tensor:
        maps = x.view(1, *shape, 1)
        return visual_scan(maps, ones, dt_weight, _DECAY * dt_weight, routes=[route], step=scan.step).flatten()

    tokens = torch.ones(shape[0] * shape[1], dtype=torch.float64)
    return (torch.autograd.functional.jacobian(run, tokens) != 0).numpy()


def places(reached: np.ndarray) -> np.ndarray:
    """Each token's place in the walk of one route, by the number of tokens that it sees.

    Args:
        reached (ndarray[T, T]): One route of :func:`reach`.

    Returns:
        ndarray[T]: int, from 0; -1 for tokens that the route does not visit. Zero tokens past the map's edge, over
        which the state decays, are not counted.
    """
    return reached.sum(axis=1) - 1
