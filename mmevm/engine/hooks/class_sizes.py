"""Which sizes of a config's weights depend on the number of classes: found by building it for more of them."""

import copy
import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor

_COUNT = re.compile(r'num_(\w+_)?classes')
_MORE = 100


def class_sized(model_cfg: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, set[int]]:
    """The dimensions that are larger when a config's model is built for more classes.

    Args:
        model_cfg (Mapping): A config's ``model``; its classes are what is called ``num_classes``, or
            ``num_things_classes`` and the like.
        state_dict (Mapping[str, Tensor]): The entries of that model, by plain names.

    Returns:
        dict[str, set[int]]: Dimensions by name; empty if such a model cannot be built.
    """
    try:
        with torch.device('meta'):
            other = MODELS.build(_with_more_classes(model_cfg)).state_dict()
    except Exception as error:  # whatever a model's own checks raise for numbers that it was not made for
        print_log(
            f'Cannot tell which weights depend on the number of classes: {type(error).__name__}: {error}',
            logger='current',
            level=logging.WARNING,
        )
        return {}
    return {
        name: {i for i, (a, b) in enumerate(zip(value.shape, other[name].shape, strict=True)) if a != b}
        for name, value in state_dict.items()
        if name in other and value.dim() == other[name].dim()
    }


def _with_more_classes(cfg: Any) -> Any:
    cfg = copy.deepcopy(cfg)
    parts = [cfg]
    while parts:
        part = parts.pop()
        if isinstance(part, list | tuple):
            parts += part
        elif isinstance(part, dict):
            counts = {key: n for key, n in part.items() if _COUNT.fullmatch(str(key)) and type(n) is int}
            # mmseg's heads may name their channels too, which then have to be as many.
            counts |= {key: n for key, n in part.items() if key == 'out_channels' and n in counts.values()}
            part.update({key: n + _MORE for key, n in counts.items()})
            parts += part.values()
    return cfg
