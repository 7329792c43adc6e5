"""`load_checkpoint` into models around a backbone: heads, necks, and what they lack."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import CheckpointError, load_checkpoint

from .conftest import State, assert_loaded


class Detector(nn.Module):
    """A model around the backbone, as mmdet's and mmpretrain's are."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.backbone = EfficientVMamba('tiny', out_indices=(3,))
        self.add_module(head, nn.ModuleDict({'fc': nn.Linear(384, 1000)}))


def test_load_checkpoint_fills_a_classifiers_head(state: State) -> None:
    model = Detector('head')
    report = load_checkpoint(model, state)
    assert report.fresh == report.dropped == []
    assert torch.equal(model.head['fc'].weight, state['classifier.head.weight'])
    assert_loaded(model.backbone, state)


def test_load_checkpoint_leaves_a_detectors_head_to_be_trained(state: State) -> None:
    model = Detector('bbox_head')
    report = load_checkpoint(model, state)
    assert report.fresh == ['bbox_head.fc.weight', 'bbox_head.fc.bias']
    assert set(report.dropped) == {'classifier.head.weight', 'classifier.head.bias'}
    assert_loaded(model.backbone, state)


def test_load_checkpoint_reads_a_whole_detector() -> None:
    source, model = Detector('bbox_head'), Detector('bbox_head')
    load_checkpoint(model, {'state_dict': source.state_dict()})
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_load_checkpoint_takes_the_backbone_of_a_model_of_another_task() -> None:
    classifier, model = Detector('head'), Detector('bbox_head')
    before = model.bbox_head['fc'].weight.clone()
    report = load_checkpoint(model, {'state_dict': classifier.state_dict()})
    assert report.dropped == ['head.fc.weight', 'head.fc.bias']
    assert report.fresh == ['bbox_head.fc.weight', 'bbox_head.fc.bias']
    assert torch.equal(model.bbox_head['fc'].weight, before)
    for name, value in classifier.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value)


def test_load_checkpoint_refuses_a_model_that_shares_a_part_of_the_heads() -> None:
    source, model = Detector('head'), Detector('head')
    source.add_module('neck', nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r'2 unexpected: neck\.weight, neck\.bias'):
        load_checkpoint(model, {'state_dict': source.state_dict()})


def _parts(**parts: Any) -> nn.Module:
    """Named modules, some of them inside others, as a detector has."""
    return nn.ModuleDict({name: _parts(**p) if isinstance(p, dict) else nn.Linear(2, p) for name, p in parts.items()})


WHOLE = {
    'neck': {'fpn_convs': {'0': 2, '1': 2}},
    'rpn_head': {'rpn_conv': 2, 'rpn_reg': 2},
    'roi_head': {'bbox_head': {'fc_cls': 2, 'fc_reg': 4}, 'mask_head': {'0': {'conv': 2}, '1': {'conv': 2}}},
    'auxiliary_head': {'conv_seg': 2},
    'head': {'task_heads': {'colour': {'fc': 2}, 'shape': {'fc': 3, 'norm': 3}}},
}


def _without_part(*path: str) -> dict[str, Any]:
    parts = copy.deepcopy(WHOLE)
    inner = parts
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return parts


def _model(parts: dict[str, Any]) -> nn.Module:
    model = _parts(**parts)
    model.add_module('backbone', EfficientVMamba({'dims': [8], 'depths': [1]}, out_indices=(0,)))
    return model


@pytest.mark.parametrize(
    'path',
    [
        ('auxiliary_head',),
        ('roi_head', 'mask_head'),
        ('rpn_head',),
        ('roi_head',),
        ('head', 'task_heads', 'shape'),
    ],
    ids='.'.join,
)
def test_load_checkpoint_leaves_out_heads_that_the_model_was_built_without(path: tuple[str, ...]) -> None:
    source, model = _model(WHOLE), _model(_without_part(*path))
    report = load_checkpoint(model, source.state_dict())
    assert report.dropped == [name for name in source.state_dict() if name.startswith('.'.join(path))]
    assert report.fresh == [] and len(report.loaded) == len(model.state_dict())
    report.require_whole('x')
    with pytest.raises(CheckpointError, match=f'{len(report.dropped)} missing: {".".join(path)}'):
        load_checkpoint(source, model.state_dict())


@pytest.mark.parametrize(
    'path',
    [
        ('neck',),
        ('neck', 'fpn_convs', '1'),
        ('rpn_head', 'rpn_conv'),
        ('roi_head', 'bbox_head', 'fc_reg'),
        ('roi_head', 'mask_head', '1'),
        ('head', 'task_heads', 'shape', 'norm'),
    ],
    ids='.'.join,
)
def test_load_checkpoint_refuses_more_of_parts_that_the_model_has(path: tuple[str, ...]) -> None:
    source, model = _model(WHOLE), _model(_without_part(*path))
    with pytest.raises(CheckpointError, match=rf'\d unexpected: {re.escape(".".join(path))}\.'):
        load_checkpoint(model, source.state_dict())


def test_load_checkpoint_leaves_out_what_only_training_needs() -> None:
    more = {'data_preprocessor.mean': torch.zeros(3), 'head.loss_cls.samples': torch.zeros(5)}
    model = _model(WHOLE)
    assert load_checkpoint(model, model.state_dict() | more).dropped == list(more)
    with pytest.raises(CheckpointError, match='1 unexpected: log_vars'):
        load_checkpoint(model, model.state_dict() | {'log_vars': torch.zeros(3)})


def test_require_whole_names_the_parts_that_would_stay_random(state: State) -> None:
    report = load_checkpoint(Detector('bbox_head'), state)
    with pytest.raises(CheckpointError, match='x lacks 2 tensors of bbox_head, which would stay random'):
        report.require_whole('x')
    load_checkpoint(Detector('head'), state).require_whole('x')
