"""Scripts started with an interpreter that lacks mmevm say which one has it, in a sentence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('tools', 'tools/analysis', 'demo', 'benchmarks')
    for path in (ROOT / folder).glob('*.py')
    if "if __name__ == '__main__'" in path.read_text() and path.name not in ('_interpreter.py', 'check_machine.py')
)
PYTHON_WITH_MMEVM = f'#!/bin/sh\nexec {sys.executable} "$@"\n'


@pytest.fixture(scope='module')
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the standard library alone."""
    folder = tmp_path_factory.mktemp('bare')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    return folder / 'bin/python'


@pytest.fixture(scope='module')
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts, without mmevm and without an environment."""
    folder = tmp_path_factory.mktemp('my checkout')
    for name in ('tools', 'demo', 'benchmarks'):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__', 'results'))
    shutil.copy(ROOT / 'Makefile', folder)
    return folder


@pytest.fixture
def environment(checkout: Path):
    """Gives the checkout an environment whose interpreter has mmevm."""
    python = checkout / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON_WITH_MMEVM)
    python.chmod(0o755)
    yield python
    shutil.rmtree(checkout / '.venv')


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'PYTHON', 'RANK')}
    words = list(map(str, command))
    return subprocess.run(words, cwd=cwd, env={**kept, **variables}, capture_output=True, text=True, check=False)


def the_message(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr and done.stdout == ''
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize('script', SCRIPTS)
def test_every_script_names_the_environment_with_mmevm(
    script: str, bare: Path, checkout: Path, environment: Path
) -> None:
    message = the_message(run(bare, script, 'an argument', '--flag', cwd=checkout))
    assert message.startswith(f'{bare} has no mmevm, torch, mmengine')
    assert f"run `.venv/bin/python {script} 'an argument' --flag`" in message
    assert '`source .venv/bin/activate` first' in message


def test_paths_are_whole_in_another_folder(bare: Path, checkout: Path, environment: Path, tmp_path: Path) -> None:
    message = the_message(run(bare, checkout / 'tools/train.py', cwd=tmp_path))
    assert f"run `'{environment}' '{checkout}/tools/train.py'`" in message


def test_without_an_environment_it_says_how_to_make_one(bare: Path, checkout: Path) -> None:
    message = the_message(run(bare, 'tools/train.py', 'a.py', cwd=checkout))
    assert f'run `make env` in {checkout}' in message
    assert 'then `.venv/bin/python tools/train.py a.py`' in message


@pytest.mark.parametrize('environment_lacks', ['everything', 'a run'])
def test_an_environment_that_lacks_the_same_is_not_named(
    bare: Path, checkout: Path, environment: Path, environment_lacks: str
) -> None:
    if environment_lacks == 'everything':
        environment.write_text(f'#!/bin/sh\nexec {bare} "$@"\n')
    else:
        environment.unlink()
        environment.symlink_to('/no/such/python')
    assert 'run `make env`' in the_message(run(bare, 'tools/test.py', cwd=checkout))


def test_outside_of_a_checkout_it_says_what_to_install(bare: Path, checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(checkout / 'tools', tmp_path / '.mim/tools')
    message = the_message(run(bare, '.mim/tools/train.py', cwd=tmp_path))
    assert message == f'{bare} has no mmevm, torch, mmengine: install it there (docs/get_started.md).'


def test_what_mmevm_needs_is_named(bare: Path, checkout: Path, environment: Path) -> None:
    message = the_message(run(bare, 'tools/train.py', cwd=checkout, PYTHONPATH=str(ROOT)))
    assert message.startswith(f'{bare} has no torch, mmengine, .venv/bin/python has')


def test_a_part_that_an_installed_package_lacks_is_no_question_of_interpreters(bare: Path, checkout: Path) -> None:
    package = checkout / 'site/mmevm'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('')
    done = run(bare, 'tools/train.py', cwd=checkout, PYTHONPATH=str(package.parent))
    assert done.returncode == 1
    assert "No module named 'mmevm.apis'" in done.stderr


COMMANDS = {
    'dist_train.sh': ('a.py', '2', '--amp'),
    'dist_test.sh': ('a.py', 'a.pth', '2'),
    'slurm_train.sh': ('gpu', 'job', 'a.py'),
    'gpu_check.sh': ('--dry-run',),
}


@pytest.mark.parametrize(
    'script, named',
    # Without PYTHON, a rehearsal of gpu_check.sh takes .venv by itself.
    [*((script, True) for script in COMMANDS), *((script, False) for script in COMMANDS if script != 'gpu_check.sh')],
)
def test_shell_scripts_name_the_environment_before_they_start_anything(
    script: str, named: bool, bare: Path, checkout: Path, environment: Path
) -> None:
    variables = {'PYTHON': str(bare)} if named else {'PATH': f'{bare.parent}:/usr/bin:/bin'}
    message = the_message(run('bash', f'tools/{script}', *COMMANDS[script], cwd=checkout, **variables))
    assert f'run `PYTHON=.venv/bin/python bash tools/{script} {" ".join(COMMANDS[script])}`' in message


def test_one_process_of_several_speaks(bare: Path, checkout: Path) -> None:
    done = run(bare, 'tools/train.py', cwd=checkout, RANK='1')
    assert (done.returncode, done.stderr) == (2, '')
