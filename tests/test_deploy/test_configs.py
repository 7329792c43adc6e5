"""Every config is made of parts that are exported: here, in test_graph.py, or in test_export.py."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmevm.deploy import load
from mmevm.deploy.export import main, wrap
from mmevm.engine.tasks import build_model
from tests.recipes import PATHS
from tests.test_deploy import toy
from tests.test_deploy.test_export import CONFIGS as TOYS
from tests.test_deploy.test_graph import BACKBONES

PYRAMIDS = {
    'demo_retinanet_evm_t_mini': ([48, 96, 192, 384], [4, 8, 16, 32]),
    'fpn_evm_t': ([48, 96, 192, 384], [4, 8, 16, 32]),
    'segformer_evm_t': ([48, 96, 192, 384], [4, 8, 16, 32]),
    'upernet_vim_t': ([192] * 4, [16] * 4),
    'ssdlite_evm_t': ([192, 384], [16, 32]),
    'rtmdet_evm_t': ([96, 192, 384], [8, 16, 32]),
    'rtmdet_ins_evm_t': ([96, 192, 384], [8, 16, 32]),
}
"""Configs whose necks and heads are exported here: widths and strides of what stands for the backbone's maps."""


def shrink(settings: Any) -> None:
    """Make a model's parts small where there are several of a kind, and its objects few."""
    few = {'stacked_convs': 1, 'num_csp_blocks': 1, 'nms_pre': 100, 'max_per_img': 20}
    if isinstance(settings, dict):
        settings.update({key: value for key, value in few.items() if settings.get(key) is not None})
    for value in settings.values() if isinstance(settings, dict) else settings:
        if isinstance(value, dict | list | tuple):
            shrink(value)


# On the original packages test_export.py exports models of the same kinds.
@pytest.mark.parametrize('name', PYRAMIDS)
def test_necks_and_heads(name: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(PATHS[name])
    channels, strides = PYRAMIDS[name]
    cfg.model.backbone = ConfigDict(type='ToyPyramid', channels=channels, strides=strides)
    shrink(cfg.model)
    cfg.custom_imports.imports.append('tests.test_deploy.toy')
    config, checkpoint = toy.write(cfg, tmp_path)
    out = tmp_path / 'model.onnx'
    assert main([str(config), str(checkpoint), '--out', str(out)]) == 0
    image = np.random.default_rng(0).integers(0, 256, (75, 90, 3), np.uint8)
    found = load(out, threads=1)(image)
    if found.task == 'segmentation':
        assert found.classes.shape == (75, 90) and len(np.unique(found.classes)) > 1
    else:
        assert len(found.boxes) > 3
        assert ('ins' in name) == (found.masks is not None and 0 < found.masks.mean() < 1)


def parts(model: torch.nn.Module) -> set[type]:
    """Return the kinds of a model's modules that take part in predictions."""
    kinds = {type(module) for module in model.modules()}
    return {kind for kind in kinds if '.losses.' not in kind.__module__}


@pytest.fixture(scope='module')
def exported() -> set[type]:
    """The kinds of all modules that are exported in tests."""
    models = [build_model(Config(make())) for make in TOYS.values()]
    models += [backbone() for backbone in BACKBONES.values()]
    for name in PYRAMIDS:
        cfg = copy.deepcopy(Config.fromfile(PATHS[name]))
        cfg.model.backbone = ConfigDict(type='ToyPyramid')
        models.append(build_model(cfg, 'meta'))
    return set().union(*map(parts, models))


@pytest.mark.openmmlab
@pytest.mark.parametrize('name', PATHS)
def test_the_parts_of_every_config_are_exported(name: str, exported: set[type]) -> None:
    cfg = Config.fromfile(PATHS[name])
    model = build_model(cfg, 'meta').eval()
    assert parts(model) <= exported
    with torch.device('meta'):
        wrap(cfg, model)
