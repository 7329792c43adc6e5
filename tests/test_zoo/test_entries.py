"""The zoo's table against backbones, configs and manual; against the metafiles: `tests/test_integration`."""

import dataclasses
import re
from pathlib import Path

import pytest

from mmevm.checkpoint.identify import build_backbone
from mmevm.zoo import ENTRIES, Entry, find_entry

ROOT = Path(__file__).resolve().parents[2]


def test_names_and_files_are_unique() -> None:
    assert all(name == entry.name for name, entry in ENTRIES.items())
    assert len({entry.file for entry in ENTRIES.values()}) == len(ENTRIES)


def test_hub_addresses_fit_their_repositories() -> None:
    for entry in ENTRIES.values():
        assert (entry.repo is not None) == ('huggingface.co' in entry.url)
        if entry.repo:
            assert entry.url == f'https://huggingface.co/{entry.repo}/resolve/main/{entry.file}'


@pytest.mark.parametrize('entry', ENTRIES.values(), ids=ENTRIES.keys())
def test_entries_name_variants_that_backbones_have(entry: Entry) -> None:
    assert entry.available
    backbone = build_backbone(entry.architecture, entry.arch, entry.options)
    assert all(part.is_meta for part in backbone.parameters())


def test_find_entry_takes_names_with_and_without_the_prefix() -> None:
    for name, entry in ENTRIES.items():
        assert find_entry(name) is find_entry(f'mmevm://{name}') is entry


def test_configs_start_from_files_of_the_zoo() -> None:
    known = {entry.url for entry in ENTRIES.values()} | {f'mmevm://{name}' for name in ENTRIES}
    found = set()
    for path in (ROOT / 'configs').rglob('*.py'):
        text = path.read_text()
        found |= set(re.findall(r"'((?:https?|mmevm)://[^']+)'", text))
    assert found and found <= known


def test_manual_shows_the_table() -> None:
    page = (ROOT / 'docs/model_zoo.md').read_text()
    rows = {match[1]: match[0] for match in re.finditer(r'^\| `(\w+)` \|.*$', page, re.M)}
    assert rows.keys() == ENTRIES.keys()
    for entry in ENTRIES.values():
        cells = [cell.strip() for cell in rows[entry.name].strip('|').split('|')]
        assert cells[1:] == [
            f'[file]({entry.url})',
            entry.metric.partition(',')[0],
            str(entry.paper or '–'),
            f'[`{Path(entry.config).stem}`](../{entry.config})',
            entry.licence,
        ]
    assert 'no\naccuracy has been measured here' in page


def test_entries_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ENTRIES['vim_tiny'].url = ''


def test_find_entry_asks_for_a_name_in_any_case() -> None:
    with pytest.raises(ValueError, match='did you mean efficient_vmamba_tiny'):
        find_entry('EFFICIENT_VMAMBA_TINI')
    with pytest.raises(TypeError, match="such as 'efficient_vmamba_tiny', got None"):
        find_entry(None)  # type: ignore[arg-type]
