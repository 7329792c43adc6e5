"""The README and the manual as Markdown files, and the fenced blocks of code in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CHANGELOG.md',
    ROOT / 'benchmarks/README.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
]

_FENCE = re.compile(r'^(`{3,})(\S*)')
_REASON = re.compile(r'^<!-- not run: (.+) -->$')


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page (Path): The file.
        line (int): Its first line of code, from 1.
        language (str): What stands behind the fence.
        text (str): The code.
        reason (str): Why it is not run, from the comment above it, or ''.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str

    @property
    def name(self) -> str:
        """File and line, as tests are called."""
        return f'{self.page.relative_to(ROOT)}:{self.line}'


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    above, opened, code = '', None, []
    for number, line in enumerate(page.read_text(encoding='utf-8').splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            reason = _REASON.match(above)
            opened, code = (fence[1], number + 1, fence[2], reason[1] if reason else ''), []
        elif opened and line == opened[0]:
            yield Block(page, opened[1], opened[2], '\n'.join(code) + '\n', opened[3])
            opened = None
        elif opened:
            code.append(line)
        above = line
    assert opened is None, f'{page}: the block of line {opened[1]} has no end'


BLOCKS = [block for page in PAGES for block in blocks(page)]


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks, directives excepted, which hold paths of images."""
    text = page.read_text(encoding='utf-8')
    return re.sub(r'^(`{3,})(?!\{)\w*\n.*?^\1$', '', text, flags=re.MULTILINE | re.DOTALL)
