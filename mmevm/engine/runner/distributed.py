"""Distributed runs without an accelerator: the process group and the model wrapper that MMEngine lacks."""

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from torch import nn

from mmevm.errors import UsageError
from mmevm.registry import MODEL_WRAPPERS, type_name

# The variables of each launcher for the rank and the number of processes.
_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
}


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """MMEngine's wrapper for models on the CPU.

    torch synchronises batch norms on accelerators only. Here each process normalises by its own images, unless the
    norms are frozen (``model.backbone.norm_eval=True``). ``device_ids``, the number of a GPU, is ignored.
    """

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **kwargs: Any) -> None:
        if any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
            print_log(
                'torch has no SyncBN on the CPU: every process normalises by its own images',
                logger='current',
                level=logging.WARNING,
            )
            module = revert_sync_batchnorm(module)
        super().__init__(module=module, device_ids=None, **kwargs)


def require_launcher(launcher: str) -> None:
    """Raise a :class:`UsageError` if the process was not started by ``launcher``."""
    missing = [name for name in _VARIABLES[launcher] if name not in os.environ]
    if missing:
        script = 'tools/slurm_train.sh' if launcher == 'slurm' else 'tools/dist_train.sh'
        raise UsageError(
            f'--launcher {launcher} needs processes that {launcher} started, and the environment lacks '
            f'{", ".join(missing)}. Start it with {script}, or leave --launcher out.'
        )


def is_first_process(launcher: str) -> bool:
    """Return whether this process has rank 0; there may be no process group yet."""
    return launcher == 'none' or os.environ[_VARIABLES[launcher][0]] == '0'


def process_count(launcher: str) -> int:
    """Return the number of processes; there may be no process group yet."""
    return 1 if launcher == 'none' else int(os.environ[_VARIABLES[launcher][1]])


@contextmanager
def shared_failure() -> Iterator[None]:
    """Raise a :class:`UsageError` of one process in all, none of which then waits for it in a collective call."""
    failure = None
    try:
        yield
    except UsageError as error:
        failure = str(error)
    if failures := [text for text in all_gather_object(failure) if text]:
        raise UsageError(failures[0])


def _slurm_master() -> str:
    """Return the name of the job's first machine."""
    nodes = os.environ['SLURM_NODELIST']
    done = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def prepare_cpu_run(cfg: Any) -> None:
    """Join the process group with the gloo backend, and let ``cfg`` wrap the model for the CPU.

    MMEngine's own ``init_dist`` would select a GPU first; it keeps an existing group.

    Args:
        cfg (Config): With ``launcher`` set; ``model_wrapper_cfg``, or an FSDP ``strategy``, is changed in place.
    """
    os.environ.update(zip(('RANK', 'WORLD_SIZE'), (os.environ[name] for name in _VARIABLES[cfg.launcher]), strict=True))
    if cfg.launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _slurm_master()
    os.environ.setdefault('MASTER_PORT', '29500')
    torch.distributed.init_process_group('gloo')
    strategy = cfg.get('strategy') or {}
    if type_name(strategy) == 'FSDPStrategy':
        strategy.setdefault('model_wrapper', dict(type='MMFullyShardedDataParallel')).setdefault('device_id', 'cpu')
        return
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        broadcast_buffers=False, find_unused_parameters=cfg.get('find_unused_parameters', False)
    )
    # Our own name is in configs that earlier runs have dumped.
    if type_name(wrapper) in (None, 'MMDistributedDataParallel', 'CPUDistributedDataParallel'):
        cfg.model_wrapper_cfg = dict(wrapper, type='mmevm.CPUDistributedDataParallel')
