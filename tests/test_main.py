"""``python -m mmevm`` and the commands of the package's own modules."""

import subprocess
import sys
from pathlib import Path

import pytest

import mmevm
from mmevm.__main__ import SCRIPTS, main

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[1]


def run_module(*arguments: str) -> subprocess.CompletedProcess:
    """A module as a command; a module that is imported twice would raise."""
    command = [sys.executable, '-W', 'error::RuntimeWarning', '-m', *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    'arguments, shown',
    [
        (['mmevm'], f'mmevm {mmevm.__version__} ('),
        (['mmevm.zoo', 'show', 'vim_tiny'], 'name:             vim_tiny\n'),
        (['mmevm.zoo', '--help'], 'usage: python -m mmevm.zoo [-h] {list,show,download,verify,convert} ...'),
        (['mmevm.doctor', '--help'], 'usage: python -m mmevm.doctor [-h]'),
    ],
    ids=['mmevm', 'zoo', 'zoo-help', 'doctor-help'],
)
def test_modules_are_commands(arguments: list[str], shown: str) -> None:
    done = run_module(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(shown)


def test_main_lists_every_command_that_is_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(ROOT)
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, purpose in {**SCRIPTS, '-m mmevm.doctor': 'what is installed', '-m mmevm.zoo': 'released'}.items():
        assert sum(f' python {name} ' in line and purpose in line for line in lines) == 1
    tools = {str(path.relative_to(ROOT)) for path in (ROOT / 'tools').rglob('*.py')}
    # The others run through make, which has a help of its own; the zoo's is the module.
    assert tools - SCRIPTS.keys() == {
        f'tools/{name}.py'
        for name in (
            '_interpreter',
            'launch',
            'demo',
            'analysis/reproduction',
            'demo_cls',
            'demo_mask',
            'demo_seg',
            'check_machine',
            'zoo',
        )
    }


def test_main_lists_no_scripts_where_none_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(mmevm.mim, '__file__', str(tmp_path / 'mmevm/mim.py'))
    assert main([]) == 0
    assert [line.split('  ')[1] for line in capsys.readouterr().out.splitlines() if line.startswith('  ')] == [
        'python -m mmevm.doctor',
        'python -m mmevm.zoo',
    ]


def test_main_refuses_what_is_no_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(['train'])
    assert ended.value.code == 2 and 'unrecognized arguments: train' in capsys.readouterr().err
