"""Numbers in the README and the manual are those of the benchmarks, the metafiles and the zoo."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from tools.analysis.complexity import measure

from .pages import ROOT

tables = SimpleNamespace(**runpy.run_path(str(ROOT / 'docs/tables.py'), run_name='tables'))


@pytest.mark.parametrize('path', tables.files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_current(path: Path) -> None:
    text = path.read_text(encoding='utf-8')
    assert text == tables.fill(text), 'run python docs/tables.py'
    assert text.count('\n<!-- table: ') == len(tables.BLOCK.findall(text))


def test_every_table_is_shown() -> None:
    shown = {match[2] for path in tables.files() for match in tables.BLOCK.finditer(path.read_text(encoding='utf-8'))}
    assert shown == set(tables.TABLES)


def test_a_changed_number_is_noticed() -> None:
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    changed = re.sub(r'(\| EfficientVMamba-T \| 6\.5 \|) [\d.]+ \|', r'\1 1.5 |', text)
    assert changed != text == tables.fill(changed)


def test_every_config_is_listed() -> None:
    listed = {name for pattern, *_ in tables.CONFIGS for name in tables.expand(pattern)}
    present = {path.stem for path in (ROOT / 'configs').glob('*.py')}
    assert listed == {name for name in present if not name.startswith('demo_')}


@pytest.mark.openmmlab
@pytest.mark.usefixtures('extension')
@pytest.mark.parametrize(
    'names, size, said',
    [
        ('upernet_evm_{t,s,b}_640', (640, 2560), '359, 788 and 1452 GFLOPs (`--size 640 2560`)'),
        ('upernet_vim_{t,s}', (512, 512), '41 and 156 GFLOPs\n  (`--size 512 512`)'),
    ],
)
def test_flops_at_the_size_of_the_test_are_those_in_the_text(names: str, size: tuple[int, int], said: str) -> None:
    assert said in (ROOT / 'docs/training.md').read_text(encoding='utf-8')
    configs = [Config.fromfile(ROOT / f'configs/{name}.py') for name in tables.expand(names)]
    counted = [f'{measure(cfg, size).flops / 1e9:.0f}' for cfg in configs]
    assert re.findall(r'\d+', said.partition(' GFLOPs')[0]) == counted
