"""``docs/reproduction.md``: the papers' figures beside ours."""

from collections.abc import Mapping

from mmevm.analysis import paper, predecessors
from mmevm.analysis.complexity import Complexity
from mmevm.analysis.paper import Row, Table

TABLES = (*paper.TABLES, *predecessors.TABLES)
_LIMIT = 0.02

_INTRODUCTION = """# Against the papers' tables

Parameters and FLOPs of the configs here, counted by this project, beside those that the papers print: Tables 1 to 8 are
EfficientVMamba's ([arXiv 2403.09977](https://arxiv.org/abs/2403.09977)); VMamba's
([arXiv 2401.10166](https://arxiv.org/abs/2401.10166)) and Vim's ([arXiv 2401.09417](https://arxiv.org/abs/2401.09417))
follow. **Every accuracy below is the papers': none of them has been measured here.** The file is generated:
`python tools/analysis/complexity.py --table`.

One multiply-add is one FLOP. Convolutions, matrix products, norms, bilinear resizing and adaptive pooling count as in
fvcore, which has no rule for Vim's root mean square norm; a selective scan counts 9 N + 1 per token and channel (N
states, 16 or, in VMamba's second design, 1; the other 1 is the skip connection), to which come the projections to and
from the time step's rank. Batch norms that evaluation folds into a convolution cost nothing. Pictures have 224 x 224
pixels for classification, 1280 x 800 for detection (heads: 1000 proposals, 100 masks) and 2048 x 512 for segmentation.
Parameters include everything that is trained, auxiliary heads too. A difference above 2 % is explained in its row.
"""


def _difference(ours: float, printed: str) -> float:
    return ours / float(printed) - 1


def _rounds_to(ours: float, printed: str) -> bool:
    decimals = len(printed.partition('.')[2])
    return f'{ours:.{decimals}f}' == printed


def _explanation(row: Row, figures: Mapping[str, tuple[float, str]]) -> str:
    """The row's note.

    Raises:
        ValueError: If a figure is more than 2 % off, does not round to the paper's, and the row gives no reason; or if
            it gives one that nothing needs.
    """
    off = {
        name: _rounds_to(ours, printed)
        for name, (ours, printed) in figures.items()
        if printed and abs(_difference(ours, printed)) > _LIMIT
    }
    unexplained = [name for name, rounds in off.items() if not rounds]
    if bool(unexplained) != bool(row.reason):
        problem = f'no reason for {", ".join(unexplained)}' if unexplained else 'a reason that nothing needs'
        raise ValueError(f'{row.label} ({row.config}): {problem}')
    rounding = [name for name, rounds in off.items() if rounds]
    notes = [f'{" and ".join(rounding)}: the paper rounds'] if rounding else []
    return '; '.join(notes + ([f'{" and ".join(unexplained)}: {row.reason}'] if unexplained else []))


def _cells(ours: float, printed: str, decimals: int) -> list[str]:
    if not printed:
        return ['–', f'{ours:.{decimals}f}', '–']
    return [printed, f'{ours:.{decimals}f}', f'{100 * _difference(ours, printed):+.1f} %']


def _line(cells: list[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _render(table: Table, measured: Mapping[str, Complexity]) -> list[str]:
    header = ['row', 'config', 'params, M: paper', 'ours', 'difference', 'FLOPs, G: paper', 'ours', 'difference']
    header += [f"{name} (paper's)" for name in table.metrics] + ['note']
    lines = [f'## {table.title}', '', _line(header), _line(['---'] * len(header))]
    for row in table.rows:
        cost = measured[row.config]
        params, flops = cost.params / 1e6, cost.flops / 1e9
        note = _explanation(row, {'params': (params, row.params), 'FLOPs': (flops, row.flops)})
        config = f'[`{row.config.rpartition("/")[2]}`](../configs/{row.config}.py)'
        cells = [row.label, config, *_cells(params, row.params, 2), *_cells(flops, row.flops, 2), *row.metrics, note]
        lines.append(_line(cells))
    return [*lines, '', *([table.note, ''] if table.note else [])]


def configs() -> list[str]:
    """The configs that the tables need, each once."""
    return list(dict.fromkeys(row.config for table in TABLES for row in table.rows))


def reproduction(measured: Mapping[str, Complexity]) -> str:
    """The text of ``docs/reproduction.md``.

    Args:
        measured (Mapping[str, Complexity]): The cost of each of :func:`configs`.

    Returns:
        str: Markdown.

    Raises:
        ValueError: If a difference above 2 % is not explained, or a reason not needed.
    """
    body = [line for table in TABLES for line in _render(table, measured)]
    return '\n'.join([_INTRODUCTION, *body]).rstrip() + '\n'
