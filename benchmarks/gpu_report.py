"""The report of the GPU benchmark: targets and measurements, as Markdown and JSON."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timing
from gpu_models import MODEL_COLUMNS, RESOLUTION_COLUMNS
from gpu_operator import BACKEND_COLUMNS, PATH_COLUMNS

TABLES = {
    'paths': ('Atrous scan with its projections, fused against composed', PATH_COLUMNS),
    'backends': ('The operator alone, by backend, against the floors', BACKEND_COLUMNS),
    'models': ('Classifiers', MODEL_COLUMNS),
    'resolution': ('Inference over resolution', RESOLUTION_COLUMNS),
}

TARGET_COLUMNS = {'target, on an H200': '{text}', 'measured': '{measured}', 'verdict': '{verdict}'}
CHECK_COLUMNS = {'phase': '{name}', 'outcome': '{outcome}', 'seconds': '{seconds}', 'detail': '{detail}'}

Report = dict[str, Any]
"""Everything that is written, as the JSON file holds it."""


@dataclass(frozen=True)
class Target:
    """A bound on measured numbers.

    Attributes:
        text (str): What is required.
        limit (float): The bound.
        at_least (bool): Whether the bound is the lower one.
        values (Callable): Report -> measurements; the target is reached when every one of them is within the bound.
        unit (str): Printed after the numbers.
    """

    text: str
    limit: float
    at_least: bool
    values: Callable[[Report], list[float]]
    unit: str = ' ×'

    def judge(self, report: Report) -> timing.Row:
        """Return a line of the table of targets, from measured numbers only."""
        values = self.values(report)
        if not values:
            return {'text': self.text, 'measured': '–', 'verdict': 'not measured', 'values': values}
        if report['dry_run']:
            return {'text': self.text, 'measured': '–', 'verdict': 'none: a dry run', 'values': values}
        reached = [v >= self.limit if self.at_least else v <= self.limit for v in values]
        low, high = (f'{v:.2f}{self.unit}' for v in (min(values), max(values)))
        count = f', {sum(reached)} of {len(values)} cases' if len(values) > 1 else ''
        return {
            'text': self.text,
            'measured': (low if len(values) == 1 else f'{low} to {high}') + count,
            'verdict': 'reached' if all(reached) else 'not reached',
            'values': values,
        }


def _column(table: str, name: str, **wanted: Any) -> Callable[[Report], list[float]]:
    """Return the values of a column, where there are any, in the lines with the given fields."""

    def values(report: Report) -> list[float]:
        rows = [row for row in report.get(table, []) if all(row.get(k) == v for k, v in wanted.items())]
        return [row[name] for row in rows if row.get(name) is not None]

    return values


def _over_floor(cut: bool) -> Callable[[Report], list[float]]:
    """Return forward over binding floor of the backend that 'auto' takes, where routes are cut, or are not."""

    def values(report: Report) -> list[float]:
        rows = report.get('backends', [])
        return [r['floor_ratio'] for r in rows if r['backend'] == rows[0]['backend'] and (r['segments'] > 1) == cut]

    return values


def _large_batch(name: str) -> Callable[[Report], list[float]]:
    """Return a column of the paths, for the cases of the largest batch: those of few images wait for launches."""

    def values(report: Report) -> list[float]:
        largest = max((row['batch'] for row in report.get('paths', [])), default=0)
        return _column('paths', name, batch=largest)(report)

    return values


def _throughput_over(counterpart: str) -> Callable[[Report], list[float]]:
    """Return EVM-T's images per second over the counterpart's in its faster layout."""

    def values(report: Report) -> list[float]:
        ours = _column('models', 'inference_rate', model='evm_tiny', scan='fused')(report)
        theirs = _column('models', 'inference_rate', model=counterpart)(report)
        return [ours[0] / max(theirs)] if ours and theirs else []

    return values


TARGETS = (
    Target(
        'ES2D forward, largest batch, at least 3 × as fast as composed',
        3.0,
        True,
        _large_batch('forward_ratio'),
    ),
    Target('ES2D forward + backward, largest batch, at least 2.5 ×', 2.5, True, _large_batch('training_ratio')),
    Target('ES2D forward within 1.5 × the binding floor, routes in one piece', 1.5, False, _over_floor(cut=False)),
    Target('ES2D forward within 1.25 × that of both passes, routes in segments', 1.25, False, _over_floor(cut=True)),
    Target(
        'EVM-T training step at least 1.4 × as fast as the composed path',
        1.4,
        True,
        _column('models', 'training_ratio', model='evm_tiny', scan='fused'),
    ),
    Target(
        'EVM-T peak memory at most 0.6 × the composed path',
        0.6,
        False,
        _column('models', 'memory_ratio', model='evm_tiny', scan='fused'),
    ),
    Target('EVM-T inference throughput above mobilevit_xs', 1.0, True, _throughput_over('mobilevit_xs')),
    Target('EVM-T inference throughput above pvt_v2_b0', 1.0, True, _throughput_over('pvt_v2_b0')),
)


def judge(report: Report) -> list[timing.Row]:
    """Return the table of targets."""
    return [target.judge(report) for target in TARGETS]


def read_checks(path: Path | None) -> list[timing.Row]:
    """Parse the phases of tools/gpu_check.sh, a line each: name, outcome, seconds, detail, separated by tabs."""
    if path is None:
        return []
    lines = path.read_text(encoding='utf-8').splitlines()
    return [dict(zip(('name', 'outcome', 'seconds', 'detail'), line.split('\t'), strict=True)) for line in lines]


def markdown(report: Report) -> str:
    """Return the report for readers."""
    parts = [f'# {report["title"]}', *report['notes'], '## Targets']
    parts.append(timing.markdown_table(report['targets'], TARGET_COLUMNS))
    if report['checks']:
        parts += ['## Checks in the same run', timing.markdown_table(report['checks'], CHECK_COLUMNS)]
    for name, (heading, columns) in TABLES.items():
        body = timing.markdown_table(report[name], columns) if name in report else 'Not measured.'
        parts += [f'## {heading}', body]
    parts += [f'![{text}]({name})' for text, name in report['plots'].items()]
    parts += ['## Machine', '\n'.join(f'- {key}: {value}' for key, value in report['environment'].items())]
    return '\n\n'.join(parts) + '\n'


def save(out: Path, name: str, report: Report) -> None:
    """Write ``<out>/<name>.json`` and ``<out>/<name>.md``, each complete at any moment."""
    content = json.dumps(report, indent=1, ensure_ascii=False) + '\n'
    timing.replace_file(out / f'{name}.json', lambda path: path.write_text(content, encoding='utf-8'))
    timing.replace_file(out / f'{name}.md', lambda path: path.write_text(markdown(report), encoding='utf-8'))
