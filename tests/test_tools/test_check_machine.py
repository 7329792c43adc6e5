"""`make env`: what a machine lacks is said before anything is installed, and which commands build an environment."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools/check_machine.py'


def test_this_machine_lacks_nothing() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')


def test_a_missing_compiler_is_named() -> None:
    environment = {**os.environ, 'CXX': 'no-such-compiler'}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert 'there is no C++ compiler (no-such-compiler): install g++' in done.stderr


def test_missing_headers_and_an_old_python_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    problem = runpy.run_path(str(SCRIPT))['problem']
    monkeypatch.setitem(problem.__globals__, 'sysconfig', type('', (), {'get_paths': lambda: {'include': tmp_path}}))
    assert 'Python.h' in problem()
    monkeypatch.setattr(sys, 'version_info', (3, 10, 4))
    assert problem().startswith('Python 3.11 or newer is needed, this is 3.10')


def commands(*arguments: str) -> str:
    """What make would run for an environment that does not exist."""
    made = ['make', '-n', 'VENV=.venv-none', 'VENV_OPENMMLAB=.venv-none-openmmlab', *arguments]
    return subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize('target, pin', [('env', 'mmcv-onedl.txt'), ('env-openmmlab', 'mmcv-openmmlab.txt')])
def test_mmcv_is_installed_without_its_operators(target: str, pin: str) -> None:
    (line,) = (line for line in commands(target).splitlines() if 'MMCV_WITH_OPS' in line)
    assert 'MMCV_WITH_OPS=0' in line and line.endswith(f'--no-deps -r requirements/{pin}')


@pytest.mark.parametrize('target, pin', [('env', 'onedl-mmcv==2.3.6'), ('env-openmmlab', 'mmcv==2.1.0')])
def test_mmcv_is_compiled_on_request(target: str, pin: str) -> None:
    text = commands(target, 'MMEVM_COMPILE_MMCV=1').replace('\\\n', '')
    (line,) = (line for line in text.splitlines() if 'MMCV_WITH_OPS' in line)
    assert 'MMCV_WITH_OPS=1' in line and '--no-binary :all:' in line
    shell = line[line.index('"$(sed') : line.rindex('"') + 1]
    assert subprocess.run(f'echo {shell}', shell=True, cwd=ROOT, capture_output=True, text=True).stdout.strip() == pin


def requirements(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith('#')]


@pytest.mark.parametrize('path', sorted((ROOT / 'requirements').glob('*.txt')), ids=lambda path: path.stem)
def test_everything_is_pinned(path: Path) -> None:
    pins = requirements(path)
    if path.stem == 'test-torch':  # has the names of what the other files pin
        shared = [pin for name in ('common', 'dev') for pin in requirements(path.with_name(f'{name}.txt'))]
        pins = [pin for name in pins for pin in shared if pin.startswith(f'{name}==')]
        assert len(pins) == len(requirements(path))
    assert pins and all('==' in pin for pin in pins)
