"""Render ``docs/reproduction.md``: published and own figures side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mmevm.zoo.entries import ENTRIES

if TYPE_CHECKING:
    from tools.analysis.complexity import Complexity

Table = Mapping[str, Any]


def _read() -> list[Table]:
    """Return the published tables, with the results of released checkpoints filled in."""
    tables = yaml.safe_load(Path(__file__).with_name('published.yml').read_text(encoding='utf-8'))
    released = {Path(entry.config).stem: entry.results for entry in ENTRIES.values()}
    for table in tables:
        for row in table['rows'] if 'metrics' in table else ():
            row.setdefault('results', released.get(row['config'], ''))
    return tables


TABLES: list[Table] = _read()
"""The published tables; the file describes its fields."""

_LIMIT = 0.02

_INTRODUCTION = """# Comparison with the published tables

Parameters and FLOPs of the configs here, counted by this project, beside those that the papers print: Tables 1 to 8 are
EfficientVMamba's ([arXiv 2403.09977](https://arxiv.org/abs/2403.09977)); VMamba's
([arXiv 2401.10166](https://arxiv.org/abs/2401.10166)) and Vim's ([arXiv 2401.09417](https://arxiv.org/abs/2401.09417))
follow. **Every accuracy below is the papers': none of them has been measured here.** The file is generated:
`python tools/analysis/complexity.py --table`.

One multiply-add is one FLOP. Convolutions, matrix products, norms, bilinear resizing and adaptive pooling count as in
fvcore, which has no rule for Vim's root mean square norm; a selective scan counts 9 N + 1 per token and channel (N
states, 16 or, in VMamba's second design, 1; the other 1 is the skip connection), plus the projections to and from the
time step's rank. Batch norms that evaluation folds into a convolution cost nothing. Images have 224 x 224 pixels for
classification, 1280 x 800 for detection (heads: 1000 proposals, 100 masks) and 2048 x 512 for segmentation.
Parameters include everything that is trained, auxiliary heads too. A difference above 2 % is explained in its row.
"""


def _difference(ours: float, printed: str) -> float:
    return ours / float(printed) - 1


def _rounds_to(ours: float, printed: str) -> bool:
    decimals = len(printed.partition('.')[2])
    return f'{ours:.{decimals}f}' == printed


def _explain(row: Mapping[str, str], ours: Mapping[str, float]) -> str:
    """Return a row's note.

    Raises:
        ValueError: If a figure is more than 2 % off, does not round to the paper's, and the row gives no reason; or if
            the row gives a reason that is not needed.
    """
    off = {
        name: _rounds_to(value, row[name])
        for name, value in ours.items()
        if name in row and abs(_difference(value, row[name])) > _LIMIT
    }
    labels = {'params': 'params', 'flops': 'FLOPs'}
    unexplained = [labels[name] for name, rounds in off.items() if not rounds]
    rounding = [labels[name] for name, rounds in off.items() if rounds]
    if bool(unexplained) != ('reason' in row):
        problem = f'no reason for {", ".join(unexplained)}' if unexplained else 'a reason that is not needed'
        raise ValueError(f'{row["model"]} ({row["config"]}): {problem}')
    notes = [f'{" and ".join(rounding)}: the paper rounds'] if rounding else []
    return '; '.join(notes + ([f'{" and ".join(unexplained)}: {row["reason"]}'] if unexplained else []))


def _cells(ours: float, printed: str | None) -> list[str]:
    if printed is None:
        return ['–', f'{ours:.2f}', '–']
    return [printed, f'{ours:.2f}', f'{100 * _difference(ours, printed):+.1f} %']


def _render_reference(table: Table, measured: Mapping[str, Complexity]) -> list[str]:
    """Return a table of other models with the same heads beside ours, which need not cost the same."""
    header = ['config', 'params, M', 'FLOPs, G', 'model of the head', 'params, M', 'FLOPs, G', *table['metrics']]
    rows = [header, ['---'] * len(header)]
    for row in table['rows']:
        cost = measured[row['config']]
        theirs = [row['model'], row.get('params', '–'), row.get('flops', '–'), *row['results'].split()]
        rows.append([_link(row), f'{cost.params / 1e6:.2f}', f'{cost.flops / 1e9:.2f}', *theirs])
    lines = [f'| {" | ".join(cells)} |' for cells in rows]
    return [f'## {table["title"]}', '', *lines, '', table['note'], '']


def _link(row: Mapping[str, str]) -> str:
    return f'[`{row["config"].rpartition("/")[2]}`](../configs/{row["config"]}.py)'


def _render(table: Table, measured: Mapping[str, Complexity]) -> list[str]:
    header = ['model', 'config', 'params, M: paper', 'ours', 'difference', 'FLOPs, G: paper', 'ours', 'difference']
    header += [f"{name} (paper's)" for name in table.get('metrics', ())] + ['note']
    rows = [header, ['---'] * len(header)]
    for row in table['rows']:
        cost = measured[row['config']]
        ours = {'params': cost.params / 1e6, 'flops': cost.flops / 1e9}
        figures = [cell for name, value in ours.items() for cell in _cells(value, row.get(name))]
        rows.append([row['model'], _link(row), *figures, *row.get('results', '').split(), _explain(row, ours)])
    lines = [f'## {table["title"]}', '', *(f'| {" | ".join(cells)} |' for cells in rows), '']
    return [*lines, table['note'], ''] if 'note' in table else lines


def configs() -> dict[str, tuple[int, int] | None]:
    """Return the configs of all tables, each once, with the height and width of their images if not the usual ones."""
    rows = [row for table in TABLES for row in table['rows']]
    return {row['config']: tuple(row['size']) if 'size' in row else None for row in rows}


def reproduction(measured: Mapping[str, Complexity], tables: Sequence[Table] = TABLES) -> str:
    """Return the text of ``docs/reproduction.md``.

    Args:
        measured (Mapping[str, Complexity]): The cost of each config.
        tables (Sequence[Table]): Published tables.

    Returns:
        str: Markdown.

    Raises:
        ValueError: If a difference above 2 % is not explained, or a reason not needed.
    """
    body = [
        line for table in tables for line in (_render_reference if table.get('reference') else _render)(table, measured)
    ]
    return '\n'.join([_INTRODUCTION, *body]).rstrip() + '\n'
