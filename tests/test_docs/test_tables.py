"""Numbers in the README and the manual are those of the benchmarks, the metafiles and the zoo."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

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
