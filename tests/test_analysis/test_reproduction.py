"""`docs/reproduction.md` is current and complete, and explains what differs."""

from pathlib import Path

import pytest
from mmengine.config import Config

from tools.analysis import metafiles
from tools.analysis.complexity import Complexity, measure
from tools.analysis.reproduction import configs, reproduction

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]


def render(row: dict[str, str], params: float, flops: float) -> str:
    table = {'title': 'Table 9', 'metrics': ['top-1'], 'rows': [row]}
    return reproduction({row['config']: Complexity(int(params * 1e6), int(flops * 1e9), 0)}, [table]).splitlines()[-1]


@pytest.fixture(scope='module')
def measured(extension: None) -> dict[str, Complexity]:
    sizes = dict.fromkeys(metafiles.names()) | configs()
    return {name: measure(Config.fromfile(ROOT / f'configs/{name}.py'), size) for name, size in sizes.items()}


def test_published_comparison_is_what_the_tool_would_write(measured: dict[str, Complexity]) -> None:
    assert (ROOT / 'docs/reproduction.md').read_text(encoding='utf-8') == reproduction(measured)


def test_metafiles_are_what_the_tool_would_write(measured: dict[str, Complexity]) -> None:
    texts = metafiles.render(measured)
    assert {path: path.read_text(encoding='utf-8') for path in ROOT.glob('configs/metafile_*.yml')} == texts


def test_report_has_every_config_that_a_paper_has_figures_for() -> None:
    names = {path.relative_to(ROOT / 'configs').with_suffix('').as_posix() for path in ROOT.glob('configs/**/*.py')}
    # The paper has nothing for 640 x 640.
    assert set(configs()) == {name for name in names if not name.startswith(('_base_', 'demo')) and '_640' not in name}


ROW = dict(model='x', config='x', params='6', flops='0.8', results='76.5')


def test_report_notes_where_the_paper_rounds() -> None:
    line = render(ROW, 6.494, 0.803)
    assert '| 6 | 6.49 | +8.2 % | 0.8 | 0.80 | +0.4 % | 76.5 | params: the paper rounds |' in line


def test_report_gives_the_reason_of_a_larger_difference() -> None:
    row = dict(model='x', config='x', params='13.0', results='37.5', reason='another neck')
    line = render(row, 15.99, 167.5)
    assert line.endswith('| 13.0 | 15.99 | +23.0 % | – | 167.50 | – | 37.5 | params: another neck |')


@pytest.mark.parametrize(
    'row, problem',
    [
        (dict(ROW, params='13.0'), 'no reason for params'),
        (dict(ROW, params='16.0', reason='another neck'), 'a reason that is not needed'),
    ],
    ids=['missing', 'superfluous'],
)
def test_report_needs_a_reason_exactly_where_figures_differ(row: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        render(row, 15.99, 0.8)


def test_report_labels_accuracies_as_the_papers() -> None:
    text = (ROOT / 'docs/reproduction.md').read_text(encoding='utf-8')
    headers = [line for line in text.splitlines() if line.startswith('| model |')]
    metrics = {cell.strip() for line in headers for cell in line.split('|')}
    metrics -= {'', 'model', 'config', 'params, M: paper', 'FLOPs, G: paper', 'ours', 'difference', 'note'}
    assert metrics and all(cell.endswith("(paper's)") for cell in metrics)
