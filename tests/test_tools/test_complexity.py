"""`tools/analysis/complexity.py` as a user runs it."""

import re
from pathlib import Path

import pytest

from mmevm.cli.complexity import main

from .conftest import CONFIG, ROOT, Run

pytestmark = [pytest.mark.openmmlab, pytest.mark.usefixtures('extension')]


def test_complexity_prints_a_line_for_each_config(run_tool: Run, tmp_path: Path) -> None:
    done = run_tool('analysis/complexity.py', CONFIG, ROOT / 'configs/classifier_evm_s.py', cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [re.split(r'\s{2,}', line.strip()) for line in done.stdout.splitlines() if '_evm_' in line]
    assert lines == [
        ['retinanet_evm_t', '800 x 1280', '15.991', '167.524', '218.0'],
        ['classifier_evm_s', '224 x 224', '11.274', '1.338', '9.6'],
    ]


def test_complexity_takes_another_size(capsys: pytest.CaptureFixture) -> None:
    assert main([str(ROOT / 'configs/classifier_evm_t.py'), '--size', '64', '96']) == 0
    assert re.search(r'classifier_evm_t +64 x 96 +6\.494 ', capsys.readouterr().out)


def test_complexity_says_which_config_is_not_there(capsys: pytest.CaptureFixture) -> None:
    assert main(['no/such.py']) == 2
    assert re.search(r'Config file not found: /.*/no/such\.py', capsys.readouterr().err)


@pytest.mark.parametrize('arguments', [[], ['--table', 'x.md', '--size', '64', '64']], ids=['nothing', 'both'])
def test_complexity_refuses_what_makes_no_sense(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match='2'):
        main(arguments)
