"""Which pretrained weights of a config are left out because a checkpoint overwrites them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import CheckpointError
from mmevm.engine.hooks.weights import StrictWeights, skip_overwritten

NOWHERE = {'type': 'Pretrained', 'checkpoint': 'nowhere.pth'}
CONSTANT = {'type': 'Constant', 'layer': 'Linear', 'val': 0.5}
State = dict[str, Tensor]


class Part(BaseModule):
    """Anything of a model that has weights."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.fc = nn.Linear(2, 2)


class Model(BaseModule):
    """A detector, say: what it is made of, each with an ``init_cfg`` of its own."""

    def __init__(self, init_cfg: Any = None, own: bool = True, **parts: Any) -> None:
        super().__init__(init_cfg)
        backbone = EfficientVMamba({'dims': [8], 'depths': [1]}, out_indices=(0,)) if own else Part()
        backbone.init_cfg = parts.pop('backbone', None)
        self.backbone = backbone
        for name, init in parts.items():
            self.add_module(name, Part(init))


class HiddenTeacher(Model):
    """A model whose files leave the frozen teacher out."""

    def state_dict(self, *args: Any, **kwargs: Any) -> State:
        return {name: v for name, v in super().state_dict(*args, **kwargs).items() if not name.startswith('teacher')}


def skipped(model: Model, state: State, folder: Path, complete: bool = False) -> set[str]:
    """Modules that lose their pretrained weights to a file of ``state``."""
    before = {name for name, module in model.named_modules() if 'nowhere.pth' in str(getattr(module, 'init_cfg', ''))}
    torch.save({'state_dict': state}, folder / 'start.pth')
    path = str(folder / 'start.pth')
    skip_overwritten(SimpleNamespace(model=model), StrictWeights(path, complete=complete), path)
    return {name for name in before if 'nowhere.pth' not in str(model.get_submodule(name).init_cfg)}


@pytest.mark.parametrize('own', [True, False], ids=['mmevm', 'other'])
@pytest.mark.parametrize('complete', [True, False], ids=['resume', 'load_from'])
def test_a_whole_checkpoint_leaves_no_pretrained_weights(own: bool, complete: bool, tmp_path: Path) -> None:
    model = Model(NOWHERE, own, backbone=NOWHERE, neck=[CONSTANT, NOWHERE], bbox_head=None)
    assert skipped(model, model.state_dict(), tmp_path, complete) == {'', 'backbone', 'neck'}
    assert model.neck.init_cfg == [CONSTANT] and model.backbone.init_cfg is None
    model.init_weights()  # opens no file
    assert model.neck.fc.weight.eq(0.5).all()


@pytest.mark.parametrize('kind', ['Pretrained', 'mmengine.Pretrained', 'PretrainedInit', PretrainedInit], ids=str)
def test_pretrained_weights_are_known_by_every_name(kind: Any, tmp_path: Path) -> None:
    model = Model(backbone={'type': kind, 'checkpoint': 'nowhere.pth'})
    assert skipped(model, model.state_dict(), tmp_path) == {'backbone'}


@pytest.mark.parametrize('own', [True, False], ids=['mmevm', 'other'])
def test_what_the_checkpoint_lacks_keeps_its_pretrained_weights(own: bool, tmp_path: Path) -> None:
    model = Model(NOWHERE, own, backbone=NOWHERE, neck=NOWHERE, bbox_head=None)
    state = {name: value for name, value in model.state_dict().items() if name.startswith('backbone.')}
    assert skipped(model, state, tmp_path) == {'backbone'}


def test_a_part_of_a_module_is_not_enough(tmp_path: Path) -> None:
    model = Model(own=False, backbone=NOWHERE, neck=NOWHERE)
    state = model.state_dict() | {'neck.fc.weight': torch.zeros(3, 2)}  # for other classes, say
    del state['backbone.fc.bias']
    assert skipped(model, state, tmp_path) == set()


def test_a_classifier_without_output_norms_is_enough_for_the_backbone(tmp_path: Path) -> None:
    model = Model(backbone=NOWHERE, bbox_head=None)
    classifier = {name: v for name, v in model.backbone.state_dict().items() if not name.startswith('outnorm')}
    assert skipped(model, classifier | {'head.weight': torch.zeros(3, 8)}, tmp_path) == {'backbone'}


def test_a_head_for_other_classes_keeps_its_pretrained_weights(tmp_path: Path) -> None:
    model = Model(backbone=NOWHERE, bbox_head=NOWHERE)
    state = model.state_dict() | {'bbox_head.fc.weight': torch.zeros(3, 2)}
    assert skipped(model, state, tmp_path) == {'backbone'}


def test_a_teacher_that_files_leave_out_keeps_its_weights(tmp_path: Path) -> None:
    model = HiddenTeacher(backbone=NOWHERE, teacher=NOWHERE)
    assert skipped(model, model.state_dict(), tmp_path, complete=True) == {'backbone'}


def test_a_checkpoint_that_does_not_fit_is_refused_first(tmp_path: Path) -> None:
    model, other = Model(backbone=NOWHERE), Model(backbone=None)
    other.backbone = EfficientVMamba({'dims': [16], 'depths': [1]}, out_indices=(0,))
    with pytest.raises(CheckpointError, match='start.pth: .*does not fit'):
        skipped(model, other.state_dict(), tmp_path)
    assert model.backbone.init_cfg == NOWHERE


def test_without_pretrained_weights_the_checkpoint_is_not_read() -> None:
    skip_overwritten(SimpleNamespace(model=Model()), StrictWeights('none.pth', complete=True), 'none.pth')
