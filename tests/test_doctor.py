"""The doctor tells what is there, and survives what is broken."""

from importlib.metadata import packages_distributions, version

import pytest
import torch

from mmevm import doctor, mmcv_ext
from mmevm.ops import backends


@pytest.mark.openmmlab
def test_report_names_every_component_and_its_distribution(monkeypatch, capsys):
    evaluate = doctor.evaluate

    def evaluate_here(imports: str, expression: str) -> str:
        # mmcv's operators depend on what was imported before them; the libraries need no process each.
        if 'mmcv.ops' in imports:
            return evaluate(imports, expression)
        names: dict = {}
        exec(imports, names)
        return str(eval(expression, names))

    monkeypatch.setattr(doctor, 'evaluate', evaluate_here)
    assert doctor.main([]) == 0
    output = capsys.readouterr().out
    rows = {line.split()[0]: line for line in output.splitlines() if line.startswith('  ')}
    provider = next(name for name in ('onedl-mmcv', 'mmcv-lite', 'mmcv') if name in packages_distributions()['mmcv'])
    assert f'{provider} {version(provider)}' in rows['mmcv']
    assert rows['mmcv.ops'].split(maxsplit=1)[1].startswith(mmcv_ext.describe())
    assert torch.__version__ in rows['torch']
    assert {'python', 'GPU', 'nvcc', 'mmengine', 'mmdet', 'mmseg', 'mmpretrain', 'triton', 'mmevm'} <= rows.keys()
    assert 'available' in rows['reference']
    assert '  triton (cuda) ' in output


@pytest.mark.parametrize(
    'source, expected',
    [
        ('raise ImportError("undefined symbol: at_empty")', 'does not import: ImportError: undefined symbol: at_empty'),
        ('assert False, "MMCV==2.2.0 is used but incompatible"', 'AssertionError: MMCV==2.2.0 is used'),
        ('import os; os.abort()', 'crashed with signal 6'),
        ('import sys; sys.exit()', 'does not import: it ended the process'),
        ('print("welcome")', '1.2'),
    ],
    ids=['symbol', 'version cap', 'abort', 'silent exit', 'chatty'],
)
def test_library_reports_a_broken_import(tmp_path, monkeypatch, source, expected):
    (tmp_path / 'broken_library.py').write_text(f'__version__ = "1.2"\n{source}\n')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.setattr(doctor, 'distributions', lambda module: 'broken 1.2')
    assert expected in doctor.library('broken_library')


def test_library_reports_what_is_not_installed():
    assert doctor.library('no_such_library') == 'not installed'


def test_probe_turns_an_error_into_its_text():
    def fail() -> str:
        raise OSError('first line\nlibcudart.so.13: cannot open')

    assert doctor.probe(fail) == 'error: OSError: libcudart.so.13: cannot open'


def test_main_prints_reason_and_remedy_and_fails_without_a_backend(monkeypatch, capsys):
    missing = backends.BackendStatus('compiled', 'cpu', False, 'it is not built', 'build it')
    monkeypatch.setattr(backends, 'status', lambda: [missing])
    monkeypatch.setattr(doctor, 'versions', list)
    assert doctor.main() == 1
    output = capsys.readouterr().out
    assert 'compiled (cpu)  not available: it is not built' in output
    assert 'to enable it: build it' in output
    assert 'No operator backend is usable' in output


def test_main_survives_a_backend_module_that_fails(monkeypatch, capsys):
    def fail() -> list:
        raise RuntimeError('kernel registry is gone')

    monkeypatch.setattr(backends, 'status', fail)
    monkeypatch.setattr(doctor, 'versions', list)
    assert doctor.main() == 1
    assert 'RuntimeError: kernel registry is gone' in capsys.readouterr().out


def test_main_succeeds_with_one_usable_backend(monkeypatch, capsys):
    usable = backends.BackendStatus('reference', 'any', True, 'plain PyTorch')
    monkeypatch.setattr(backends, 'status', lambda: [usable])
    monkeypatch.setattr(doctor, 'versions', list)
    assert doctor.main() == 0


def test_nvcc_looks_through_a_wrapper_script(tmp_path, monkeypatch):
    toolkit = tmp_path / 'toolkit'
    wrapper = tmp_path / 'bin' / 'nvcc'
    wrapper.parent.mkdir()
    (toolkit / 'bin').mkdir(parents=True)
    wrapper.write_text(
        '#!/bin/sh\n'
        'case "$1" in\n'
        '--version) echo "Cuda compilation tools, release 12.8, V12.8.1";;\n'
        f'*) echo "#$ TOP={toolkit}/bin/.." >&2;;\n'
        'esac\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv('CUDA_HOME', str(tmp_path))
    assert doctor.nvcc() == f'12.8 ({wrapper}, toolkit {toolkit})'
