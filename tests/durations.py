"""CPU seconds of tests, of which ``tests/durations.txt`` keeps those that count.

Functions of LIMIT seconds or more, all cases together, and those with a fixture that takes as much and is shared with
others are marked `slow` and left out by ``make test-fast``. The files with the most seconds are run first, so that at
the end no process has a long one left. What runs without being listed and takes three times the limit is named in the
summary; ``--write-durations`` measures anew.
"""

import importlib
import os
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import pytest

LIMIT = 0.3
_FILE = Path(__file__).with_name('durations.txt')
_start = 0.0
_shared: dict[pytest.FixtureDef, float] = {}
_measured: dict[str, list[tuple[float, float]]] = defaultdict(list)


def cpu_seconds() -> float:
    """Of this process and of those that it waited for, which other processes do not lengthen."""
    return sum(os.times()[:4])


def read() -> dict[str, float]:
    """Return the seconds of slow functions, by name."""
    lines = _FILE.read_text(encoding='utf-8').splitlines() if _FILE.exists() else []
    return {name: float(seconds) for seconds, name in map(str.split, lines)}


def function_of(nodeid: str) -> str:
    """Return the name of the function of which a test is a case."""
    return nodeid.partition('[')[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that measures."""
    parser.addoption('--write-durations', action='store_true', help=f'write {_FILE.name} for the files that are run')


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow functions, and begin with the longest files."""
    slow = read()
    files: dict[str, float] = defaultdict(float)
    for name, seconds in slow.items():
        files[name.partition('::')[0]] += seconds
    for item in items:
        if function_of(item.nodeid) in slow:
            item.add_marker('slow')
    items.sort(key=lambda item: -files[item.nodeid.partition('::')[0]])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin with the first test; what many need is imported before it, or the first that does would seem slow."""
    global _start
    if len(session.items) > 1000 or session.config.getoption('--write-durations'):
        for library in ('mmdet', 'mmseg', 'mmpretrain'):
            importlib.import_module(f'{library}.apis')
    _start = cpu_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> Generator[None, object, object]:
    """Measure fixtures that tests share."""
    if fixturedef.scope == 'function':
        return (yield)
    start = cpu_seconds()
    value = yield
    _shared[fixturedef] = cpu_seconds() - start
    return value


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, object, object]:
    """Put a test's own seconds and those of the dearest fixture that others made into its last report."""
    global _start
    if call.when == 'teardown':
        fixtures = [f for known in item._fixtureinfo.name2fixturedefs.values() for f in known if f in _shared]
        item.user_properties.append(('cpu', (cpu_seconds() - _start, max((_shared[f] for f in fixtures), default=0.0))))
        _start = cpu_seconds()
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what tests took, here or in the processes of xdist."""
    for key, value in report.user_properties:
        if report.when == 'teardown' and key == 'cpu':
            _measured[function_of(report.nodeid)].append(value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the file on request; otherwise name what it lacks."""
    took = {name: sum(own for own, _ in cases) for name, cases in _measured.items()}
    listed = read()
    if not config.getoption('--write-durations'):
        for name, seconds in took.items():
            if seconds > 3 * LIMIT and name not in listed:
                terminalreporter.write_line(f'{seconds:.1f} s and not in {_FILE.name}: {name}', yellow=True)
        return
    files = {name.partition('::')[0] for name in took}
    kept = {name: seconds for name, seconds in listed.items() if name.partition('::')[0] not in files}
    # Whichever test is first makes the fixture.
    shared = {name: max(seconds for _, seconds in cases) for name, cases in _measured.items()}
    kept |= {name: seconds for name, seconds in took.items() if max(seconds, shared[name]) >= LIMIT}
    text = ''.join(f'{seconds:.1f} {name}\n' for name, seconds in sorted(kept.items()))
    _FILE.write_text(text, encoding='utf-8')
