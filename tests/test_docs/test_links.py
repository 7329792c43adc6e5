"""Links, paths, headings and Python names that the README and the manual mention exist."""

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

import mmevm.engine.optimizers  # noqa: F401  registers mmevm.LayerDecay
from mmevm.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS

from .pages import PAGES, ROOT, prose

every_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))

_LINK = re.compile(r'\]\(([^()\s]+)\)|^```\{figure\} (\S+)$', re.MULTILINE)
_PATH = re.compile(r'`((?:mmevm|csrc|configs|tools|demo|benchmarks|docs|tests|requirements)/[\w./]+)`')
_NAME = re.compile(r'`(mmevm(?:\.\w+)+)')
# Of an installation, or of a build.
_ELSEWHERE = ('mmevm/.mim/configs', 'mmevm/_C.abi3.so', 'mmevm/_C_cuda.abi3.so')


def anchors(page: Path) -> set[str]:
    """The names under which GitHub and MyST know the headings of a page."""
    headings = re.findall(r'^#+ (.+)$', prose(page), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@every_page
def test_links_resolve(page: Path) -> None:
    for link, figure in _LINK.findall(prose(page)):
        target = link or figure
        if re.match(r'https?://', target):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


@every_page
def test_paths_exist(page: Path) -> None:
    paths = set(_PATH.findall(prose(page))) - set(_ELSEWHERE)
    assert not [path for path in paths if not (ROOT / path).exists()]


@every_page
def test_python_names_resolve(page: Path) -> None:
    for name in _NAME.findall(prose(page)):
        kind = name.removeprefix('mmevm.')
        if MODELS.get(kind) is None and OPTIM_WRAPPER_CONSTRUCTORS.get(kind) is None:
            resolve_name(name)


def test_every_page_is_reached_from_the_readme_or_the_index() -> None:
    linked = set()
    for page in (ROOT / 'README.md', ROOT / 'docs/index.md', ROOT / 'docs/api.md'):
        text = page.read_text(encoding='utf-8')
        linked |= {(page.parent / link).resolve() for link, _ in _LINK.findall(text) if link.endswith('.md')}
        linked |= {page.parent / f'{entry}.md' for entry in re.findall(r'^[\w/]+$', text, re.MULTILINE)}
    assert {page for page in PAGES if page.is_relative_to(ROOT / 'docs')} - {ROOT / 'docs/index.md'} <= linked


def test_readme_is_short_and_begins_with_a_command() -> None:
    lines = (ROOT / 'README.md').read_text(encoding='utf-8').splitlines()
    assert len(lines) <= 150
    assert lines.index('```bash') < 25
