"""Two gloo processes on the CPU train and evaluate as one process does on the full batch.

The batch norms are frozen, because each process would otherwise normalise by its own images: torch has no SyncBN on the
CPU.
"""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.checkpoint import load_file
from mmevm.engine.runner.distributed import CPUDistributedDataParallel

from .small_classifier import ROOT
from .toy import CONFIG, read

pytestmark = [pytest.mark.openmmlab, pytest.mark.skipif(torch.cuda.is_available(), reason='the CPU is under test')]

# The steps of SGD grow with the gradient, as those of Adam do not, and momentum keeps a wrong one in the next losses.
CLASSIFIER = """
model = dict(type='ToyClassifier')
train_dataloader.update(batch_size={batch}, dataset=dict(type='ToyImages', size=12))
val_dataloader.update(dataset=dict(type='ToyImages', size=5))
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.3, momentum=0.9))
param_scheduler = []
"""
# What docs/training.md shows; tests/test_docs compares them.
FSDP = """
runner_type = 'FlexibleRunner'
full = dict(rank0_only=False, offload_to_cpu=False)
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(type='MMFullyShardedDataParallel', use_orig_params=True),
    state_dict_cfg=dict(
        state_dict_type='FULL_STATE_DICT',
        state_dict_config=dict(type='FullStateDictConfig', **full),
        optim_state_dict_config=dict(type='FullOptimStateDictConfig', **full)))
"""
# Slurm's program, as far as the script and MMEngine see it: starts the tasks, numbered, on this machine.
SRUN = """#!/bin/bash
echo "$*" > srun.txt
while [[ $1 == --* ]]; do shift; done
for task in 1 0; do
    SLURM_PROCID=$task SLURM_NTASKS=2 SLURM_LOCALID=$task SLURM_NODELIST=node1 "$@" & pids+=($!)
done
for pid in "${pids[@]}"; do wait $pid || exit 1; done
"""


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


def run_script(name: str, *arguments: object, cwd: Path, **variables: object) -> None:
    """Run a shell script of tools/ in a folder, with one thread per process."""
    cwd.mkdir(exist_ok=True)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)}
    environment.update({name: str(value) for name, value in variables.items()})
    command = ['bash', str(ROOT / 'tools' / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds configs of one and of two processes with the same total batch."""
    folder = tmp_path_factory.mktemp('distributed')
    (folder / 'one.py').write_text(CONFIG + CLASSIFIER.format(batch=4))
    (folder / 'two.py').write_text(CONFIG + CLASSIFIER.format(batch=2))
    (folder / 'fsdp.py').write_text(CONFIG + CLASSIFIER.format(batch=2) + FSDP)
    return folder


@pytest.fixture(scope='module')
def single(folder: Path) -> tuple[list[dict], Path]:
    """The losses and the work directory of a training run in this one process."""
    cwd = folder / 'single'
    cwd.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert run_train([str(folder / 'one.py'), '--work-dir', 'work']) == 0
    return read(cwd), cwd / 'work'


def require_same_training(single: tuple[list[dict], Path], folder: Path) -> None:
    """Compare a run of one process with one of two: images and mean loss of every iteration, and the weights."""
    one, *two = single[0], read(folder, 0), read(folder, 1)
    assert [len(lines) for lines in (one, *two)] == [6, 6, 6]
    for line, first, second in zip(one, *two, strict=True):
        assert sorted(line['images']) == sorted(first['images'] + second['images'])
        # The processes saw other images, so that their losses differ by more than what the means may.
        assert abs(first['loss'] - second['loss']) > 1e-3
        assert (first['loss'] + second['loss']) / 2 == pytest.approx(line['loss'], rel=1e-5)
    losses = [line['loss'] for line in one]
    assert max(losses) - min(losses) > 0.1
    ours, theirs = (load_file(work / 'epoch_2.pth')['state_dict'] for work in (single[1], folder / 'work'))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(
            theirs[name], weight, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )


def test_two_processes_train_as_one_does_on_the_full_batch(folder: Path, single: tuple[list[dict], Path]) -> None:
    run_script('dist_train.sh', folder / 'two.py', 2, '--work-dir', 'work', cwd=folder / 'double', PORT=free_port())
    require_same_training(single, folder / 'double')


def test_slurm_starts_processes_that_shard_the_model_and_train_together(
    folder: Path, single: tuple[list[dict], Path]
) -> None:
    programs, cwd = folder / 'bin', folder / 'slurm'
    programs.mkdir()
    for name, text in (('srun', SRUN), ('scontrol', '#!/bin/bash\necho 127.0.0.1\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    run_script(
        'slurm_train.sh',
        *('long', 'name', folder / 'fsdp.py', '--work-dir', 'work'),
        cwd=cwd,
        PATH=f'{programs}:/usr/bin:/bin',
        GPUS=2,
        GPUS_PER_NODE=0,
        CPUS_PER_TASK=1,
        MASTER_PORT=free_port(),
    )
    asked = (cwd / 'srun.txt').read_text().split()
    assert asked[:4] == ['--partition=long', '--job-name=name', '--ntasks=2', '--cpus-per-task=1']
    assert not any(word.startswith('--gres') for word in asked)
    require_same_training(single, cwd)


def test_dist_test_evaluates_every_image_once(folder: Path, single: tuple[list[dict], Path]) -> None:
    checkpoint, cwd = single[1] / 'epoch_2.pth', folder / 'test'
    arguments = ['--work-dir', 'work', '--out']
    run_script('dist_test.sh', folder / 'two.py', checkpoint, 2, *arguments, 'two.pkl', cwd=cwd, PORT=free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert run_test([str(folder / 'one.py'), str(checkpoint), *arguments, 'one.pkl']) == 0
    one, two = (torch.stack(pickle.loads((cwd / f'{name}.pkl').read_bytes())) for name in ('one', 'two'))
    # Five images make the processes' shares unequal.
    assert one.shape == (5, 4) and len(one.unique(dim=0)) == 5
    torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)


def test_launcher_is_refused_in_a_process_that_it_did_not_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    assert run_train([str(folder / 'two.py'), '--launcher', 'slurm', '--work-dir', str(folder / 'none')]) == 2
    assert 'the environment lacks SLURM_PROCID' in capsys.readouterr().err


def test_model_wrapper_normalises_by_the_process_where_torch_cannot_synchronise() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    model = torch.nn.Sequential(torch.nn.SyncBatchNorm(3))
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = CPUDistributedDataParallel(model, device_ids=[0])
        torch.testing.assert_close(wrapped(x), torch.nn.BatchNorm2d(3)(x))
    finally:
        torch.distributed.destroy_process_group()
