"""``python -m mmevm`` and the commands of the package's own modules."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mmevm
from mmevm.__main__ import SCRIPTS, main

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[1]


# Each command has a process, forked when torch is imported; runpy warns of a module that was imported before.
RUN = """
import json, os, runpy, sys, warnings
import mmengine.runner, torch
assert 'mmevm' not in sys.modules
for name, *arguments in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        print('---', name, *arguments, flush=True)
        sys.argv = [name, *arguments]
        warnings.simplefilter('error', RuntimeWarning)
        runpy.run_module(name, run_name='__main__', alter_sys=True)
        os._exit(1)  # each ends by SystemExit
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(f'--- ended with {status}', flush=True)
"""
COMMANDS = {
    ('mmevm',): f'mmevm {mmevm.__version__} (',
    ('mmevm.zoo', 'show', 'vim_tiny'): 'name:             vim_tiny\n',
    ('mmevm.zoo', '--help'): 'usage: python -m mmevm.zoo [-h] {list,show,download,verify,convert} ...',
    ('mmevm.doctor', '--help'): 'usage: python -m mmevm.doctor [-h]',
}


def test_modules_are_commands() -> None:
    command = [sys.executable, '-c', RUN, json.dumps(list(COMMANDS))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for arguments, shown in COMMANDS.items():
        output = done.stdout.partition(f'--- {" ".join(arguments)}\n')[2]
        assert output.startswith(shown), done.stdout + done.stderr
    assert done.stdout.count('--- ended with 0\n') == len(COMMANDS), done.stdout + done.stderr


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
            'analysis/metafiles',
            'analysis/reproduction',
            'demo_cls',
            'demo_fashion',
            'demo_mask',
            'demo_seg',
            'demo_trees',
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
