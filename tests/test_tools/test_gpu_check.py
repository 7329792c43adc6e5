"""tools/gpu_check.sh rehearsed on the CPU: every phase runs, failures are reported and do not stop the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'benchmarks' / 'results'


def run_check(*options: object, python: object = sys.executable, **variables: str) -> subprocess.CompletedProcess:
    """Runs the script from another folder, one thread, without this project's wheels."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': str(python), **variables}
    command = ['bash', str(ROOT / 'tools' / 'gpu_check.sh'), *map(str, options)]
    return subprocess.run(command, cwd='/', env=environment, capture_output=True, text=True, check=False)


def phases(out: Path) -> dict[str, str]:
    """Outcome of every phase, by name."""
    lines = (out / 'phases.tsv').read_text().splitlines()
    return {name: outcome for name, outcome, _, _ in (line.split('\t') for line in lines)}


def test_dry_run_runs_every_phase_and_writes_nothing_into_the_results(extension: None, tmp_path: Path) -> None:
    pytest.importorskip('timm')
    before = sorted(RESULTS.iterdir())
    done = run_check('--dry-run', '--out', tmp_path, MMEVM_WHEELS=str(tmp_path / 'none'))
    assert done.returncode == 0, done.stdout + done.stderr
    assert phases(tmp_path) == {
        'extension': 'ok', 'tests': 'ok', 'memcheck (script alone)': 'ok', 'mamba_ssm': 'left out', 'benchmark': 'ok',
    }  # fmt: skip
    assert ' passed' in (tmp_path / 'logs' / 'tests.log').read_text().splitlines()[-1]
    report = json.loads((tmp_path / 'dry-run.json').read_text(encoding='utf-8'))
    assert report['complete'] and report['dry_run']
    assert [check['name'] for check in report['checks']][:2] == ['extension', 'tests']
    assert {line['verdict'] for line in report['targets']} <= {'none: a dry run', 'not measured'}
    for row in report['paths']:
        assert row['forward_ratio'] == pytest.approx(row['composed_forward'] / row['forward'])
    assert {row['scan'] for row in report['models']} == {'fused', 'composed', '–'}
    assert {row['resolution'] for row in report['resolution']} == {64, 96}
    for name in report['plots'].values():
        assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')
    assert sorted(RESULTS.iterdir()) == before


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """An interpreter whose tests fail and whose other commands succeed at once."""
    path = tmp_path / 'python'
    path.write_text(f"""#!/bin/bash
    if [[ $2 == *sys.executable* ]]; then echo {path}
    elif [[ $2 == pytest ]]; then echo '1 failed, 3 passed'; exit 1
    else echo "ran $1 $2"; fi
    """)
    path.chmod(0o755)
    return path


def test_a_failing_phase_is_reported_and_the_others_still_run(fake_python: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    done = run_check('--dry-run', '--out', out, python=fake_python, MMEVM_WHEELS=str(tmp_path / 'none'))
    assert done.returncode == 1
    assert 'tests: failed (1): 1 failed, 3 passed' in done.stdout
    outcomes = phases(out)
    assert [name for name, outcome in outcomes.items() if outcome not in ('ok', 'left out')] == ['tests']
    assert outcomes['benchmark'] == 'ok'
    assert '1 of 5 phases failed' in done.stdout


def test_without_a_gpu_the_check_names_the_dry_run() -> None:
    done = run_check(CUDA_VISIBLE_DEVICES='')
    assert done.returncode == 2
    assert '--dry-run shows on the CPU that the check works' in done.stdout


def test_an_unknown_option_prints_the_usage() -> None:
    done = run_check('--quick')
    assert done.returncode == 2
    assert 'tools/gpu_check.sh --dry-run [--out FOLDER]' in done.stderr
