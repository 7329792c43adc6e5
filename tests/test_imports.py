"""Imports of the package: one direction, no circle, none inside a function."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for path in (ROOT / 'mmevm').rglob('*.py')
    if '.mim' not in path.parts
}
BELOW = {
    'files': (),
    'ops': (),
    'layers': ('ops',),
    'registry': (),
    'heads': ('registry',),
    'checkpoint': ('registry',),
    'errors': ('checkpoint',),
    'backbones': ('ops', 'layers', 'checkpoint', 'registry'),
    '_patches': (),
    'mim': (),
    'zoo': ('_patches', 'backbones', 'checkpoint', 'registry', 'errors', 'files', 'mim', 'version'),
    'engine': ('_patches', 'backbones', 'checkpoint', 'registry', 'errors', 'files', 'zoo'),
    'deploy': ('ops', 'layers', 'backbones', 'checkpoint', 'registry', 'errors', 'files', 'zoo', 'engine', 'version'),
    'data': ('registry', 'errors', 'files', 'engine'),
    'apis': ('engine', 'data', 'deploy', 'files', 'checkpoint', 'registry', 'errors', 'zoo', 'version'),
}
"""What each part may import, besides itself; parts that are not named may import any."""


def imports(node: ast.AST, module: str) -> list[str]:
    """The modules of this repository that a statement imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f'{node.module}.{alias.name}' for alias in node.names]
        names = [name if name in MODULES else node.module for name in names]
    else:
        return []
    assert not getattr(node, 'level', 0), f'{module} has a relative import'
    return [name for name in names if name.partition('.')[0] in ('mmevm', 'tools', 'demo', 'benchmarks', 'tests')]


def part(module: str) -> str:
    """The part of the package that a module belongs to."""
    return module.split('.')[1] if '.' in module else ''


GRAPH = {
    module: {name for node in ast.walk(ast.parse(path.read_text())) for name in imports(node, module)}
    for module, path in MODULES.items()
}


def test_there_is_no_circle() -> None:
    # `from mmevm.ops import checks` in a module of mmevm.ops concerns the module, not the package around both.
    graph = {m: {name for name in names if not m.startswith(f'{name}.')} for m, names in GRAPH.items()}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES) > 80


@pytest.mark.parametrize('module', MODULES)
def test_imports_go_one_way(module: str) -> None:
    assert all(name.partition('.')[0] == 'mmevm' for name in GRAPH[module])
    allowed = BELOW.get(part(module))
    if allowed is not None:
        assert {part(name) for name in GRAPH[module]} <= {part(module), *allowed}


@pytest.mark.parametrize('module', MODULES)
def test_no_function_imports_the_package(module: str) -> None:
    functions = [node for node in ast.walk(ast.parse(MODULES[module].read_text())) if hasattr(node, 'decorator_list')]
    inside = [name for function in functions for node in ast.walk(function) for name in imports(node, module)]
    assert inside == []
