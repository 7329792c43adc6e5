"""`mmevm.analysis.report`: the comparison is current, complete, and explains what differs."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from mmevm.analysis import Complexity, measure, report, reproduction
from mmevm.analysis.paper import Row, Table

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]


def render(row: Row, params: float, flops: float, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(report, 'TABLES', (Table('Table 9: nothing', ('top-1',), (row,)),))
    return reproduction({row.config: Complexity(int(params * 1e6), int(flops * 1e9), 0)}).splitlines()[-1]


@pytest.fixture(scope='module')
def measured(extension: None) -> dict[str, Complexity]:
    return {name: measure(Config.fromfile(ROOT / 'configs' / f'{name}.py')) for name in report.configs()}


def test_published_comparison_is_what_the_tool_would_write(measured: dict[str, Complexity]) -> None:
    assert (ROOT / 'docs/reproduction.md').read_text(encoding='utf-8') == reproduction(measured)


def test_metafiles_state_the_flops_that_the_tool_counts(measured: dict[str, Complexity]) -> None:
    metafiles = [yaml.safe_load(path.read_text()) for path in ROOT.glob('configs/metafile_*.yml')]
    entries = [entry for metafile in metafiles for entry in metafile['Models']]
    stated = {entry['Name']: entry['Metadata']['FLOPs'] for entry in entries if entry['Name'] in measured}
    assert len(stated) == len(entries) - 3  # the same models at 640 x 640
    assert stated == {name: measured[name].flops for name in stated}


def test_report_has_every_config_that_a_paper_has_figures_for() -> None:
    configs = {path.relative_to(ROOT / 'configs').with_suffix('').as_posix() for path in ROOT.glob('configs/**/*.py')}
    configs = {name for name in configs if not name.startswith(('_base_', 'demo'))}
    # At 640 x 640 the paper states nothing.
    assert set(report.configs()) == {name for name in configs if not name.endswith('_640')}


def test_report_notes_where_the_paper_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    line = render(Row('x', 'x', '6', '0.8', ('76.5',)), 6.494, 0.803, monkeypatch)
    assert '| 6 | 6.49 | +8.2 % | 0.8 | 0.80 | +0.4 % | 76.5 | params: the paper rounds |' in line


def test_report_gives_the_reason_of_a_larger_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    line = render(Row('x', 'x', '13.0', '', ('37.5',), 'another neck'), 15.99, 167.5, monkeypatch)
    assert line.endswith('| 13.0 | 15.99 | +23.0 % | – | 167.50 | – | 37.5 | params: another neck |')


@pytest.mark.parametrize(
    'row, problem',
    [
        (Row('x', 'x', '13.0', '', ('37.5',)), 'no reason for params'),
        (Row('x', 'x', '16.0', '', ('37.5',), 'another neck'), 'a reason that nothing needs'),
    ],
    ids=['missing', 'superfluous'],
)
def test_report_insists_on_a_reason_exactly_where_one_is_needed(
    row: Row, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=problem):
        render(row, 15.99, 167.5, monkeypatch)


def test_report_shows_accuracies_as_the_papers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / 'docs/reproduction.md').read_text(encoding='utf-8')
    headers = [line for line in text.splitlines() if line.startswith('| row |')]
    metrics = {cell.strip() for line in headers for cell in line.split('|')}
    metrics -= {'', 'row', 'config', 'params, M: paper', 'FLOPs, G: paper', 'ours', 'difference', 'note'}
    assert metrics and all(cell.endswith("(paper's)") for cell in metrics)
