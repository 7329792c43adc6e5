"""tools/setup_env.py: steps that are done once, resume after an interruption, and explain their failures."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from mmevm import _cuda_toolkit
from mmevm._cuda_toolkit import CudaToolkit

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'setup_env.py'


@pytest.fixture
def tool(tmp_path, monkeypatch) -> ModuleType:
    """The script as a module, with its logs below tmp_path."""
    spec = importlib.util.spec_from_file_location('setup_env', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    return module


@pytest.fixture
def environment(tool, tmp_path):
    """An environment whose folder exists and which has no steps yet."""
    (tmp_path / 'venv').mkdir()
    return tool.Environment('onedl', tmp_path / 'venv')


class Recorder:
    """A step's action that notes its calls and fails as often as told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[bool] = []
        self.error = error

    def __call__(self, interrupted: bool) -> None:
        self.calls.append(interrupted)
        if self.error is not None:
            raise self.error


def give_steps(tool, environment, monkeypatch, inputs: list, *actions: Recorder) -> None:
    steps = [
        tool.Step(f'step{i}', f'title {i}', lambda i=i: [inputs[i]], action, f'advice {i}')
        for i, action in enumerate(actions)
    ]
    monkeypatch.setattr(environment, 'steps', lambda: steps)


def test_build_repeats_a_step_only_when_an_input_or_an_earlier_step_changed(tool, environment, monkeypatch):
    actions, inputs = (Recorder(), Recorder(), Recorder()), ['a', 'b', 'c']
    give_steps(tool, environment, monkeypatch, inputs, *actions)
    environment.build()
    environment.build()
    assert [len(action.calls) for action in actions] == [1, 1, 1]
    inputs[1] = 'changed'
    environment.build()
    assert [len(action.calls) for action in actions] == [1, 2, 2]


def test_build_tells_a_step_that_it_was_interrupted(tool, environment, monkeypatch):
    action = Recorder(KeyboardInterrupt())
    give_steps(tool, environment, monkeypatch, ['a'], action)
    with pytest.raises(KeyboardInterrupt):
        environment.build()
    action.error = None
    environment.build()
    assert action.calls == [False, True]


def test_build_redoes_a_step_whose_result_is_gone(tool, environment, monkeypatch):
    action = Recorder()
    step = tool.Step('step', 'title', list, action, 'advice', in_place=lambda: False)
    monkeypatch.setattr(environment, 'steps', lambda: [step])
    environment.build()
    environment.build()
    assert len(action.calls) == 2


def test_failing_step_shows_its_log_and_what_to_do(tool, environment, monkeypatch):
    def fail(interrupted: bool) -> None:
        environment.run('sh', '-c', 'echo no space left; exit 3')

    give_steps(tool, environment, monkeypatch, ['a'], fail)
    with pytest.raises(tool.SetupError) as error:
        environment.build()
    message = str(error.value)
    assert 'title 0' in message
    assert '    no space left' in message
    assert 'exit status 3' in message
    assert 'step0.log' in message
    assert 'What to do: advice 0' in message


def test_progress_counts_compiled_files(environment, tmp_path, capsys):
    environment.log = tmp_path / 'log'
    environment.log.write_text('  [1/78] c++ a.cpp\n  [31/78] c++ b.cpp\n')
    environment.report_progress(181.0)
    assert capsys.readouterr().out.strip() == '3 min [31/78] files compiled'


@pytest.mark.parametrize('stack, mmcv', [('onedl', 'onedl-mmcv=='), ('openmmlab', 'mmcv==')])
def test_requirements_pin_everything_and_name_mmcv(tool, tmp_path, stack, mmcv):
    environment = tool.Environment(stack, tmp_path)
    assert environment.mmcv.startswith(mmcv)
    for name in ('build', 'torch', 'common', 'dev', stack):
        unpinned = [pin for pin in tool.pins(f'{name}.txt') if '==' not in pin]
        assert not unpinned


@pytest.fixture
def mmcv_cache(tool, environment, monkeypatch, tmp_path) -> Path:
    """The folder of the cached wheel, for an environment with torch 2.11.0 that only pretends to compile."""

    def compile_mmcv(folder: Path, cuda_home: Path | None) -> None:
        folder.mkdir(parents=True)
        (folder / 'new.whl').write_text('fits')

    def install(folder: Path) -> None:
        (wheel,) = folder.glob('*.whl')
        if wheel.read_text() != 'fits':
            raise tool.SetupError('undefined symbol')

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(environment, 'torch_release', lambda: ('2.11.0+cpu', ''))
    monkeypatch.setattr(environment, 'compile_mmcv', compile_mmcv)
    monkeypatch.setattr(environment, 'install_mmcv_wheel', install)
    python = f'cp{tool.sys.version_info[0]}{tool.sys.version_info[1]}'
    name = environment.mmcv.replace('==', '-')
    return tmp_path / 'cache' / 'mmevm' / 'wheels' / f'{name}-torch2.11.0-{python}'


def test_mmcv_is_compiled_once_for_its_version_torch_and_python(environment, mmcv_cache, monkeypatch):
    environment.install_mmcv(False)
    assert [path.name for path in mmcv_cache.iterdir()] == ['new.whl']
    monkeypatch.setattr(environment, 'compile_mmcv', None)
    environment.install_mmcv(False)


def test_mmcv_is_compiled_again_where_the_cached_wheel_does_not_import(environment, mmcv_cache, capsys):
    mmcv_cache.mkdir(parents=True)
    (mmcv_cache / 'old.whl').write_text('made for another torch')
    environment.install_mmcv(False)
    assert [path.name for path in mmcv_cache.iterdir()] == ['new.whl']
    assert 'undefined symbol' in capsys.readouterr().out


@pytest.mark.parametrize(
    'force, torch_cuda, toolkit, expected',
    [
        ('0', '13.0', (13, 0), (None, 'FORCE_CUDA=0')),
        (None, '', (13, 0), (None, 'this torch has no CUDA')),
        ('1', '13.0', (13, 1), (Path('/cuda'), 'with the toolkit /cuda')),
        ('1', '13.0', (12, 8), 'nvcc is of CUDA 12.8'),
        ('1', '13.0', None, 'there is no nvcc'),
    ],
)
def test_cuda_for_mmcv(tool, environment, monkeypatch, force, torch_cuda, toolkit, expected):
    found = toolkit and CudaToolkit(Path('/cuda'), Path('/cuda/bin/nvcc'), toolkit)
    monkeypatch.setattr(_cuda_toolkit, 'find_cuda_toolkit', lambda: found)
    monkeypatch.setattr(tool.runpy, 'run_path', lambda path: vars(_cuda_toolkit))
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    if force is not None:
        monkeypatch.setenv('FORCE_CUDA', force)
    if isinstance(expected, str):
        with pytest.raises(tool.SetupError, match=expected):
            environment.cuda_for_mmcv(torch_cuda)
    else:
        assert environment.cuda_for_mmcv(torch_cuda) == expected
