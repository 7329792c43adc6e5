"""Sphinx configuration of the manual; ``make docs`` builds it into build/docs."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

import mmevm

project = 'mmevm'
author = 'mmevm authors'
copyright = 'mmevm authors, Apache License 2.0'
release = mmevm.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']

myst_heading_anchors = 3
autodoc_member_order = 'bysource'
# Docstrings give types with shapes, which annotations cannot.
autodoc_typehints = 'none'
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = 'furo'
html_title = f'mmevm {release}'
html_static_path = ['_static']
html_css_files = ['manual.css']
html_show_sphinx = False
html_math_renderer = 'mathml'
html_theme_options = {'navigation_with_keys': True}

_ONE_LINE = re.compile(r'^(?P<summary>.*?)\s*(?:Args: (?P<args>.*?))?(?:\s*Returns: (?P<returns>.*))?$')
_ARGUMENT = re.compile(r'(\w+) \(((?:[^()]|\([^()]*\))+)\)')


def spread_sections(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn ``Args: x (Tensor[B, C]). Returns: Tensor[B, C].``, the short form for one line, into sections.

    Also help over two misunderstandings of reStructuredText and napoleon.
    """
    # `C.` alone would begin a list whose items are lettered.
    lines[:] = [re.sub(r'(\): )([A-Z])\.$', r'\1\\\2.', line) for line in lines]
    if what in ('attribute', 'property') and lines:
        # Napoleon would take what stands before a colon for the attribute's type.
        lines[0] = lines[0].replace(': ', ' – ', 1)
    if not lines or not re.search(r'(^|\s)(Args|Returns): ', lines[0]):
        return
    found = _ONE_LINE.match(lines[0])
    sections = [found['summary'], ''] if found['summary'] else []
    arguments = _ARGUMENT.findall(found['args'] or '')
    if arguments:
        sections += ['Args:', *(f'    {argument} ({kind}): ' for argument, kind in arguments), '']
    if found['returns']:
        sections += ['Returns:', f'    {found["returns"]}', '']
    lines[:1] = sections


def skip_aliases(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which their class describes."""
    return True if str(getattr(obj, '__doc__', '')).startswith('Alias for field number') else None


def visit_math(self: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw without a script from another server."""
    self.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect what is defined above."""
    # Before napoleon, which reads the sections.
    app.connect('autodoc-process-docstring', spread_sections, priority=100)
    app.connect('autodoc-skip-member', skip_aliases)
    app.add_html_math_renderer('mathml', (visit_math, None), (visit_math, None))
