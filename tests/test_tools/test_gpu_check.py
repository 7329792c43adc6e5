"""tools/gpu_check.sh rehearsed on the CPU: every phase runs, failures are reported and do not stop the others."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'benchmarks' / 'results'


def run_check(
    *options: object, python: object = sys.executable, root: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess:
    """Runs the script of a tree from another folder."""
    environment = {**os.environ, 'PYTHON': str(python), **variables}
    command = ['bash', str(root / 'tools' / 'gpu_check.sh'), *map(str, options)]
    return subprocess.run(command, cwd='/', env=environment, capture_output=True, text=True, check=False)


def phases(out: Path) -> dict[str, str]:
    """Outcome of every phase, by name."""
    lines = (out / 'phases.tsv').read_text().splitlines()
    return {name: outcome for name, outcome, _, _ in (line.split('\t') for line in lines)}


def test_dry_run_runs_every_phase_and_writes_nothing_into_the_results(extension: None, tmp_path: Path) -> None:
    pytest.importorskip('timm')
    before = sorted(RESULTS.iterdir())
    settings = {'MMEVM_WHEELS': str(tmp_path / 'none'), 'PYTEST_ADDOPTS': '--first-and-last'}
    done = run_check('--dry-run', '--out', tmp_path, OMP_NUM_THREADS='1', **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert phases(tmp_path) == {
        'extension': 'ok',
        'tests': 'ok',
        'sanitizer (script alone)': 'ok',
        'mamba_ssm': 'left out',
        'benchmark': 'ok',
    }
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
def fake_python(tmp_path: Path) -> Callable[[str, str], Path]:
    """Make an interpreter that does something where an argument holds a word, and succeeds at once elsewhere."""

    def make(word: str, action: str) -> Path:
        path = tmp_path / 'python'
        path.write_text(f"""#!/bin/bash
        case $* in
          *sys.executable*) echo {path} ;;
          *"{word}"*) {action} ;;
          *) echo "ran $1 $2" ;;
        esac
        """)
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize(
    'action, outcome, detail',
    [
        ('echo 1 failed, 3 passed; exit 1', 'failed (1)', '1 failed, 3 passed'),
        ('echo begun; exec sleep 60', 'out of time', 'begun'),
    ],
    ids=['failing', 'hanging'],
)
def test_a_bad_phase_is_reported_and_the_others_still_run(
    fake_python: Callable[[str, str], Path], tmp_path: Path, action: str, outcome: str, detail: str
) -> None:
    # The phases after the tests keep 150 seconds for themselves.
    settings = {'MMEVM_WHEELS': str(tmp_path / 'none'), 'MMEVM_GPU_CHECK_SECONDS': '153'}
    done = run_check('--dry-run', '--out', tmp_path / 'out', python=fake_python('-m pytest', action), **settings)
    assert done.returncode == 1
    outcomes = phases(tmp_path / 'out')
    assert outcomes.pop('tests') == outcome and set(outcomes.values()) == {'ok', 'left out'} and len(outcomes) == 4
    assert f'tests: {outcome}: {detail}' in done.stdout
    assert '1 of 5 phases failed' in done.stdout


def test_without_kernels_the_other_phases_run(fake_python: Callable[[str, str], Path], tmp_path: Path) -> None:
    python = fake_python('extension.LOAD_ERROR', 'echo the extension is not built; exit 3')
    done = run_check('--dry-run', '--out', tmp_path / 'out', python=python, MMEVM_WHEELS=str(tmp_path / 'none'))
    assert done.returncode == 0
    assert 'extension: left out: the extension is not built' in done.stdout
    assert phases(tmp_path / 'out')['benchmark'] == 'ok'


def test_without_mmengine_the_check_says_what_to_bring(fake_python: Callable[[str, str], Path], tmp_path: Path) -> None:
    python = fake_python('from mmevm', 'echo no module named mmengine; exit 1')
    done = run_check('--dry-run', '--out', tmp_path / 'out', python=python, MMEVM_WHEELS=str(tmp_path / 'none'))
    assert done.returncode == 2
    assert 'mmevm does not import: no module named mmengine; docs/gpu.md says which wheels' in done.stdout


@pytest.fixture
def gpu_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree on a pretended GPU machine: programs write down what they are asked for, the extension can be built."""
    for folder in ('tools', 'build/gpu-wheels', 'bin'):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / 'tools' / 'gpu_check.sh', tmp_path / 'tools')
    for name in ('mmengine-1-py3-none-any.whl', 'mamba_ssm-2.tar.gz'):
        (tmp_path / 'build' / 'gpu-wheels' / name).touch()
    programs = {
        'python': """case $* in
          *sys.executable*) echo "$0" ;;
          *'import mmengine'*) exit 1 ;;
          *extension.LOAD_ERROR*) [[ -e built ]] && exit 0; echo not built; exit 3 ;;
          *'-m pytest'*) echo "$OMP_NUM_THREADS threads: $*" ;;
          *setup.py*) touch built; echo "$MMEVM_BUILD_EXT $FORCE_CUDA $*" ;;
          *) echo "$*" ;;
        esac""",
        'compute-sanitizer': 'echo "$PYTORCH_NO_CUDA_MEMORY_CACHING $*"; [[ $* != *racecheck* ]]',
    }
    for name, text in programs.items():
        (tmp_path / 'bin' / name).write_text(f'#!/bin/bash\n{text}\n')
        (tmp_path / 'bin' / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
    for name in ('MMEVM_WHEELS', 'OMP_NUM_THREADS'):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_on_a_gpu_machine_it_installs_builds_tests_and_sanitizes(gpu_machine: Path) -> None:
    done = run_check(python=gpu_machine / 'bin' / 'python', root=gpu_machine)
    work = gpu_machine / 'build' / 'gpu-check'
    assert phases(work) == {
        'wheels': 'ok',
        'extension build': 'ok',
        'extension': 'ok',
        'tests': 'ok',
        'memcheck compiled': 'ok',
        'racecheck compiled': 'failed (1)',
        'memcheck triton': 'ok',
        'racecheck triton': 'failed (1)',
        'mamba_ssm': 'ok',
    }
    # What racecheck says of Triton's own code decides nothing.
    assert done.returncode == 1 and '1 of 9 phases failed' in done.stdout
    logs = {path.stem: path.read_text().strip() for path in (work / 'logs').iterdir()}
    assert logs['wheels'].startswith('-m pip install') and logs['wheels'].endswith('mmengine-1-py3-none-any.whl')
    assert logs['extension build'] == '1 1 setup.py build_ext --inplace'
    assert logs['tests'].startswith('4 threads: -m pytest tests/gpu tests/test_ops -m gpu')
    assert logs['tests'].endswith('-n 8 --dist loadgroup')
    for tool in ('memcheck', 'racecheck'):
        for backend in ('compiled', 'triton'):
            log = logs[f'{tool} {backend}']
            assert log.startswith(f'1 --tool {tool} --error-exitcode 9') and log.endswith(f'.sanitize {backend}')
    assert logs['mamba_ssm'] == 'benchmarks/gpu_mamba.py build/gpu-wheels/mamba_ssm-2.tar.gz build/gpu-check/mamba'


def test_only_a_failure_of_the_compiled_kernels_under_racecheck_counts(gpu_machine: Path) -> None:
    (gpu_machine / 'bin' / 'compute-sanitizer').write_text('#!/bin/bash\n[[ $* != *racecheck*triton ]]\n')
    done = run_check(python=gpu_machine / 'bin' / 'python', root=gpu_machine)
    assert phases(gpu_machine / 'build' / 'gpu-check')['racecheck triton'] == 'failed (1)'
    assert done.returncode == 0 and '0 of 9 phases failed' in done.stdout


def test_without_compiled_kernels_only_triton_is_sanitized(gpu_machine: Path) -> None:
    python = gpu_machine / 'bin' / 'python'
    python.write_text(python.read_text().replace('touch built', 'false'))
    run_check(python=python, root=gpu_machine)
    outcomes = phases(gpu_machine / 'build' / 'gpu-check')
    assert outcomes['extension'] == 'failed' and outcomes['memcheck triton'] == 'ok'
    assert not any(name.endswith('compiled') for name in outcomes)


def test_the_benchmark_has_a_call_of_its_own(gpu_machine: Path) -> None:
    python, work = gpu_machine / 'bin' / 'python', gpu_machine / 'build' / 'gpu-check'
    run_check(python=python, root=gpu_machine)
    earlier = phases(work)
    assert 'benchmark' not in earlier
    (work / 'mamba').mkdir(exist_ok=True)
    (work / 'mamba' / 'selective_scan_cuda.so').touch()
    done = run_check('--benchmark', '--out', gpu_machine / 'out', python=python, root=gpu_machine)
    # The report lists the checks of the call before.
    assert phases(work) == earlier | {'benchmark': 'ok'} and done.returncode == 0
    assert '0 of 4 phases failed' in done.stdout and 'mamba_ssm: ok: compiled earlier' in done.stdout
    log = (work / 'logs' / 'benchmark.log').read_text().strip()
    options = '--mamba build/gpu-check/mamba --checks build/gpu-check/phases.tsv'
    assert log == f'benchmarks/gpu.py {options} --out {gpu_machine / "out"}'


def test_without_a_gpu_the_check_names_the_dry_run() -> None:
    done = run_check(CUDA_VISIBLE_DEVICES='')
    assert done.returncode == 2
    assert '--dry-run shows on the CPU that the check works' in done.stdout


def test_an_unknown_option_prints_the_usage() -> None:
    done = run_check('--quick')
    assert done.returncode == 2
    assert 'tools/gpu_check.sh --dry-run [--out FOLDER]' in done.stderr
