"""Two gloo processes on the CPU train and evaluate as one process does on the whole batch.

The backbone's batch norms are frozen, because each process would otherwise normalise by its own pictures: torch has no
SyncBN on the CPU. The other networks of the config have no batch norms.
"""

import pickle
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.checkpoint import load_file
from mmevm.engine.runner.distributed import CPUDistributedDataParallel

from . import small_classifier
from .recorder import read
from .small_classifier import BATCH, FROZEN, ROOT, TRAIN_IMAGES, VAL_IMAGES, write_config, write_pictures

pytestmark = [pytest.mark.openmmlab, pytest.mark.skipif(torch.cuda.is_available(), reason='the CPU is under test')]

# What docs/training.md shows; tests/test_docs compares them.
FSDP = """
runner_type = 'FlexibleRunner'
whole = dict(rank0_only=False, offload_to_cpu=False)
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(type='MMFullyShardedDataParallel', use_orig_params=True),
    state_dict_cfg=dict(
        state_dict_type='FULL_STATE_DICT',
        state_dict_config=dict(type='FullStateDictConfig', **whole),
        optim_state_dict_config=dict(type='FullOptimStateDictConfig', **whole)))
custom_hooks = [dict(type='Recorder', folder='losses', kill_at=None)]
"""
ITERATIONS = 2 * TRAIN_IMAGES // BATCH
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


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds configs of one and of two processes with the same total batch."""
    folder = tmp_path_factory.mktemp('distributed')
    data = write_pictures(folder / 'data')
    write_config(folder / 'one.py', data, FROZEN)
    write_config(folder / 'two.py', data, FROZEN, batch=BATCH // 2)
    return folder


@pytest.fixture(scope='module')
def single(folder: Path) -> Path:
    """Work folder of a training in this one process."""
    cwd = folder / 'single'
    cwd.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert run_train([str(folder / 'one.py'), '--work-dir', 'work']) == 0
    return cwd


@pytest.fixture(scope='module')
def double(folder: Path) -> Path:
    """Work folder of a training by tools/dist_train.sh in two processes."""
    done = small_classifier.run(
        'bash',
        ROOT / 'tools/dist_train.sh',
        folder / 'two.py',
        2,
        '--work-dir',
        'work',
        cwd=folder / 'double',
        PORT=free_port(),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / 'double'


def require_same_training(one: Path, two: Path) -> None:
    """Compare a training of one process with one of two: the pictures and the mean loss of every iteration."""
    whole, halves = read(one / 'losses'), [read(two / 'losses', rank) for rank in (0, 1)]
    assert len(whole) == len(halves[0]) == len(halves[1]) == ITERATIONS
    for line, first, second in zip(whole, *halves, strict=True):
        assert sorted(line['pictures']) == sorted(first['pictures'] + second['pictures'])
        # The processes saw other pictures, so that their losses differ by more than what the means may.
        assert abs(first['loss'] - second['loss']) > 1e-3
        assert (first['loss'] + second['loss']) / 2 == pytest.approx(line['loss'], rel=1e-4)
    losses = [line['loss'] for line in whole]
    assert max(losses) - min(losses) > 0.1


def test_two_processes_lose_what_one_does_on_the_whole_batch(single: Path, double: Path) -> None:
    require_same_training(single, double)


def trained_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The last weights; MMEngine saves their average as the state, and themselves beside it."""
    content = load_file(folder / 'work/epoch_2.pth')['ema_state_dict']
    return {name.removeprefix('module.'): weight for name, weight in content.items() if name != 'steps'}


def require_same_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Compare all weights, by name."""
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-4, atol=1e-6)


def test_two_processes_end_with_the_weights_of_one(single: Path, double: Path) -> None:
    require_same_weights(trained_weights(single), trained_weights(double))


def test_slurm_train_starts_the_processes_that_train_together(folder: Path, single: Path) -> None:
    programs, cwd = folder / 'bin', folder / 'slurm'
    programs.mkdir()
    for name, text in (('srun', SRUN), ('scontrol', '#!/bin/bash\necho 127.0.0.1\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    done = small_classifier.run(
        'bash',
        ROOT / 'tools/slurm_train.sh',
        'long',
        'name',
        folder / 'two.py',
        '--work-dir',
        'work',
        cwd=cwd,
        PATH=f'{programs}:/usr/bin:/bin',
        GPUS=2,
        GPUS_PER_NODE=0,
        CPUS_PER_TASK=1,
        MASTER_PORT=free_port(),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    asked = (cwd / 'srun.txt').read_text().split()
    assert asked[:4] == ['--partition=long', '--job-name=name', '--ntasks=2', '--cpus-per-task=1']
    assert not any(word.startswith('--gres') for word in asked)
    require_same_training(single, cwd)


def test_fsdp_trains_and_saves_what_one_process_does(folder: Path, single: Path) -> None:
    config = write_config(folder / 'fsdp.py', folder / 'data/imagenet', FROZEN + FSDP, batch=BATCH // 2)
    done = small_classifier.run(
        'bash', ROOT / 'tools/dist_train.sh', config, 2, '--work-dir', 'work', cwd=folder / 'fsdp', PORT=free_port()
    )
    assert done.returncode == 0, done.stderr[-4000:]
    require_same_training(single, folder / 'fsdp')
    require_same_weights(trained_weights(single), load_file(folder / 'fsdp/work/epoch_2.pth')['state_dict'])


def test_dist_test_evaluates_every_picture_once(folder: Path, single: Path) -> None:
    checkpoint, cwd = single / 'work/epoch_2.pth', folder / 'test'
    arguments = ['--work-dir', 'work', '--out']
    done = small_classifier.run(
        'bash',
        ROOT / 'tools/dist_test.sh',
        folder / 'two.py',
        checkpoint,
        2,
        *arguments,
        'two.pkl',
        cwd=cwd,
        PORT=free_port(),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert run_test([str(folder / 'one.py'), str(checkpoint), *arguments, 'one.pkl']) == 0
    one, two = results = [pickle.loads((cwd / f'{name}.pkl').read_bytes()) for name in ('one', 'two')]
    # Five pictures make the processes' shares unequal.
    assert [row['img_path'] for row in one] == [row['img_path'] for row in two] and len(one) == VAL_IMAGES
    np.testing.assert_allclose(*(np.stack([row['pred_score'] for row in rows]) for rows in results), rtol=1e-4)


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
