"""Signals end a training run at the next iteration, with a checkpoint from which it continues as if there were none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmevm.apis.evaluate import main as run_test
from mmevm.checkpoint import load_file
from mmevm.engine.hooks import stop as interruption
from mmevm.engine.hooks.stop import Interrupted, interruptible

from .small_classifier import ROOT
from .test_distributed import free_port
from .toy import EPOCH, read
from .toy_runs import Toy, default_signals, lines

pytestmark = pytest.mark.openmmlab

STATUS = {'SIGTERM': 143, 'SIGINT': 130, 'SIGHUP': 129, 'SIGUSR1': 138}
ITERATIONS = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=12, val_interval=12)
train_dataloader.update(sampler=dict(type='InfiniteSampler', shuffle=True))
"""
EMA = """
custom_hooks += [dict(type='EMAHook', momentum=0.5)]
"""


@pytest.fixture(autouse=True)
def heeded_signals() -> Iterator[None]:
    """The signals as a terminal leaves them, whatever ran these tests; a background job ignores some."""
    given = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)}
    default_signals()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in given.items():
        signal.signal(number, handler)


def ask(name: str, stage: str, number: int) -> str:
    """A change to the config that sends a signal."""
    return f'\ncustom_hooks[0].update(signals=dict(name={name!r}, at=[{stage!r}, {number}]))\n'


@pytest.mark.parametrize('name', STATUS)
def test_the_iteration_ends_and_the_next_loss_is_the_same(name: str, toy: Toy) -> None:
    expected = toy.expected()
    toy.configure(ask(name, 'train', EPOCH + 1))
    log = toy.train('--work-dir', 'stopped', status=STATUS[name])
    assert 'Traceback' not in log and f'ended with {toy.folder}/stopped/iter_{EPOCH + 2}.pth' in log
    toy.configure()
    assert read(toy.folder) == expected[: EPOCH + 2]
    toy.train('--work-dir', 'stopped', '--resume')
    assert read(toy.folder) == expected[EPOCH + 2 :]
    # What was saved for the interruption goes when a regular checkpoint has followed it.
    assert sorted(path.name for path in Path('stopped').glob('*.pth')) == ['epoch_1.pth', 'epoch_2.pth']


@pytest.mark.parametrize(
    'more', [ITERATIONS, EMA, 'runner_type = "FlexibleRunner"'], ids=['iterations', 'ema', 'flexible']
)
def test_other_kinds_of_runs_continue_with_the_same_loss(more: str, toy: Toy) -> None:
    more += '\nparam_scheduler = []\noptim_wrapper.update(type="OptimWrapper")\n'
    toy.configure(more)
    expected = toy.expected()
    toy.configure(more + ask('SIGTERM', 'train', 4))
    toy.train('--work-dir', 'stopped', status=143)
    assert read(toy.folder) == expected[:5]
    toy.configure(more)
    toy.train('--work-dir', 'stopped', '--resume')
    assert read(toy.folder) == expected[5:]


def test_several_interruptions_leave_one_file(toy: Toy) -> None:
    for stop in (1, 3):
        toy.configure(ask('SIGTERM', 'train', stop))
        toy.train('--resume', status=143)
        assert toy.names() == [f'iter_{stop + 1}.pth']


def test_a_signal_where_a_checkpoint_is_saved_anyway_saves_no_other(toy: Toy) -> None:
    toy.configure(ask('SIGTERM', 'train', 3))
    toy.train(options='default_hooks.checkpoint.by_epoch=False default_hooks.checkpoint.interval=2', status=143)
    assert toy.names() == ['iter_2.pth', 'iter_4.pth']


def test_a_signal_waits_for_accumulated_gradients(toy: Toy) -> None:
    toy.configure(ask('SIGTERM', 'train', 4) + 'optim_wrapper.update(accumulative_counts=3)')
    toy.train(status=143)
    assert toy.names() == ['iter_6.pth']


HOOKS = {
    'none': ('default_hooks.update(checkpoint=None)', 'ended without a checkpoint', []),
    'own': ("default_hooks['checkpoint'].update(type='ToyCheckpointHook')", 'ended with', ['iter_2.pth']),
    'class': (
        "import mmengine.hooks\ndefault_hooks['checkpoint'].update(type=mmengine.hooks.CheckpointHook)\ndel mmengine",
        'ended with',
        ['iter_2.pth'],
    ),
    'default': ('default_hooks = dict()', 'ended with', ['iter_2.pth']),
}


@pytest.mark.parametrize(('more', 'message', 'names'), HOOKS.values(), ids=HOOKS)
def test_any_checkpoint_hook_saves_for_a_signal(more: str, message: str, names: list[str], toy: Toy) -> None:
    toy.configure(more + ask('SIGTERM', 'train', 1))
    assert message in toy.train(status=143) and toy.names() == names
    if names:
        read(toy.folder)
        toy.configure()
        toy.train('--resume')
        assert read(toy.folder)[0]['iter'] == 2


def test_a_signal_in_an_evaluation_ends_it_and_saves_the_trained_weights(toy: Toy) -> None:
    toy.configure(EMA)
    expected = toy.expected()
    rare = 'default_hooks.checkpoint.interval=9'
    toy.configure(EMA + ask('SIGTERM', 'val', 1))
    toy.train('--work-dir', 'stopped', options=rare, status=143)
    meta = load_file(f'stopped/iter_{EPOCH}.pth')['meta']
    assert (meta['epoch'], meta['iter']) == (1, EPOCH)
    toy.configure(EMA)
    toy.train('--work-dir', 'stopped', '--resume', options=rare)
    assert read(toy.folder) == expected


def test_a_signal_before_the_first_iteration_just_ends(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmevm.apis.train.build_runner', lambda *_: signal.raise_signal(signal.SIGTERM))
    log = toy.train(status=143)
    assert toy.names() == [] and 'Traceback' not in log


def test_an_evaluation_just_ends(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.train()
    toy.configure('test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict()')
    monkeypatch.setattr('mmevm.apis.evaluate.build_runner', lambda *_: signal.raise_signal(signal.SIGINT))
    assert run_test(['config.py', 'work/epoch_2.pth']) == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_signals_stay_ignored_and_others_are_given_back() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert interruptible(lambda: signal.raise_signal(signal.SIGHUP) or 7) == 7
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)
    before = [signal.getsignal(signum) for signum in interruption._SIGNALS]
    assert interruptible(lambda: signal.raise_signal(signal.SIGTERM)) == 143
    assert [signal.getsignal(signum) for signum in interruption._SIGNALS] == before


def test_a_launchers_repetition_is_the_same_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, '_SAME_REQUEST', 5.0)
    ended = []
    monkeypatch.setattr(interruption.os, '_exit', ended.append)

    def run() -> int:
        interruption._request.is_training = True
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert ended == []
        interruption._request.since -= 5
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert interruptible(run) == 0 and ended == [143]
    assert Interrupted(signal.SIGTERM).code == 143


WORKERS = """
train_dataloader.update(num_workers=2, persistent_workers=True)
val_dataloader.update(num_workers=1)
"""


def group(process: subprocess.Popen) -> list[str]:
    """The processes that are still in the group of one."""
    return [entry for entry in os.listdir('/proc') if entry.isdigit() and _group_of(entry) == process.pid]


def _group_of(pid: str) -> int:
    try:
        return os.getpgid(int(pid))
    except ProcessLookupError:
        return -1


def started(toy: Toy, seconds: float) -> subprocess.Popen:
    """A run in the iteration after the first epoch, which takes a time."""
    toy.configure(f'{WORKERS}custom_hooks[0].update(signals=dict(at=["train", {EPOCH}]), sleep={seconds})')
    process = toy.start()
    while process.stdout.readline() != 'here\n':
        assert process.poll() is None
    return process


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
def test_processes_that_load_data_outlive_a_signal_to_the_group_until_the_iteration_ends(name: str, toy: Toy) -> None:
    process = started(toy, 1)
    os.killpg(process.pid, getattr(signal, name))
    log, _ = process.communicate(timeout=100)
    assert process.returncode == STATUS[name] and f'ended with {toy.work}/iter_{EPOCH + 1}.pth' in log
    assert 'Traceback' not in log and group(process) == []


def test_a_second_signal_ends_at_once(toy: Toy) -> None:
    process = started(toy, 60)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    log, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - begin < 10 and 'Traceback' not in log
    assert group(process) == [] and toy.names() == ['epoch_1.pth']


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_while_the_tools_are_imported_ends_them(name: str, tmp_path: Path) -> None:
    # The import of mmevm does not end.
    (tmp_path / 'mmevm').mkdir()
    (tmp_path / 'mmevm/__init__.py').write_text('import time\nprint("importing", flush=True)\ntime.sleep(60)')
    for tool in ('train.py', 'test.py'):
        process = subprocess.Popen(
            [sys.executable, ROOT / 'tools' / tool],
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONPATH': str(tmp_path)},
            preexec_fn=default_signals,
        )
        assert process.stdout.readline() == 'importing\n'
        process.send_signal(getattr(signal, name))
        assert process.communicate(timeout=10)[0] == '' and process.returncode == STATUS[name]


def test_all_processes_stop_at_the_iteration_in_which_one_is_asked(toy: Toy) -> None:
    toy.configure(ask('SIGTERM', 'train', 4) + 'custom_hooks[0].update(rank=1)\n')
    options = 'train_dataloader.batch_size=1'
    process = toy.start(options=options, processes=2, port=free_port())
    log, _ = process.communicate(timeout=200)
    assert process.returncode == 143 and len(lines(log, 'ended with .*iter_5.pth')) == 1, log[-3000:]
    assert 'Traceback' not in log and group(process) == []
    for rank in (0, 1):
        assert [line['iter'] for line in read(toy.folder, rank)] == list(range(5))
    # One process has twice the images to itself, and trains the rest of the epoch.
    toy.configure()
    toy.train('--resume', options=f'{options} train_cfg.max_epochs=1')
    assert [line['iter'] for line in read(toy.folder)] == [10, 11]
