"""The tasks that the tools serve, one per OpenMMLab library."""

import copy
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmevm.registry import scope_of


def build_model(cfg: Any, device: str = 'cpu') -> nn.Module:
    """Build a config's model; ``init_cfg`` is not applied, so nothing is downloaded.

    Args:
        cfg (Config): A config.
        device (str): Where; on ``'meta'`` the model has shapes and no values, and takes no time.

    Returns:
        nn.Module: The model.
    """
    init_default_scope(scope_of(cfg) or 'mmengine')
    with torch.device(device):
        return MODELS.build(copy.deepcopy(cfg.model))  # some models write into their configs
