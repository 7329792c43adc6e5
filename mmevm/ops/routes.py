"""Routes: how a visual scan walks over a feature map.

A visual scan runs one selective scan along each of several routes over the same map and adds their results. A route
visits the cells of a regular sub-grid, one token per cell. The description does not depend on the map's size, so that
one list of routes serves every image.
"""

from typing import NamedTuple

import torch


class Route(NamedTuple):
    """One route of a visual scan.

    Attributes:
        row (int): First row, in ``[0, step)``; the following rows are ``row + step``, ``row + 2 * step``, ….
        col (int): First column, likewise. Every route has ``ceil(H / step) * ceil(W / step)`` tokens; those past the
            map's edge are zero tokens, over which the state decays.
        column_major (bool): Walks down the columns instead of along the rows.
        reverse (bool): Walks from the last token to the first.
        parameters (int): Which of the ``K`` sets of ``A``, ``Ds``, ``dt_weight`` and ``dt_bias`` it uses.
        projection (int): Which of the ``P`` projections that ``x_dbl`` holds for each cell it uses.
    """

    row: int
    col: int
    column_major: bool
    reverse: bool
    parameters: int
    projection: int


def es2d_routes(step: int = 2) -> list[Route]:
    """Routes of the atrous scan (ES2D, arXiv 2403.09977, section 4.1): one forward route per phase of the map.

    Phase ``(m, n)`` holds the cells whose row is ``m`` and whose column is ``n`` modulo ``step``. Even ``m`` are
    scanned along the rows and odd ``m`` down the columns, with parameter set ``(m mod 2) + 2 * (n mod 2)``, so that
    every cell is covered for any step.

    Args:
        step (int): Distance between neighbouring cells of a phase, at least 2.

    Returns:
        list[Route]: ``step * step`` routes.

    Raises:
        TypeError: If ``step`` is no integer.
        ValueError: If ``step`` is below 2.
    """
    check_step(step)
    if step < 2:
        raise ValueError(f'`step` must be at least 2 for the atrous scan, got {step}')
    phases = [(m, n) for n in range(step) for m in range(step)]
    return [Route(m, n, m % 2 == 1, False, m % 2 + 2 * (n % 2), 0) for m, n in phases]


def check_step(step: int) -> None:
    """Raises TypeError unless the step is an integer, or a symbol for one."""
    if not isinstance(step, (int, torch.SymInt)):
        raise TypeError(f'`step` must be an integer, got {step!r}')


def flatten(routes: list[Route]) -> list[int]:
    """The routes as the operator's flat list of integers, six per route in field order."""
    return [int(field) for route in routes for field in route]


def unflatten(fields: list[int]) -> list[Route]:
    """The inverse of :func:`flatten`.

    Raises:
        ValueError: If the integers are not six per route.
    """
    if not fields or len(fields) % 6:
        raise ValueError(f'`routes` must hold 6 integers per route, got {len(fields)}')
    return [
        Route(row, col, bool(column_major), bool(reverse), parameters, projection)
        for row, col, column_major, reverse, parameters, projection in zip(*[iter(fields)] * 6, strict=True)
    ]
