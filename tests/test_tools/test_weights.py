"""Which differences between a checkpoint and a model the tools accept, and what they say of them."""

import copy
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import CheckpointError, report
from mmevm.engine.hooks import weights
from mmevm.engine.hooks.weights import StrictWeights

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).resolve().parents[2]
State = dict[str, Tensor]


class Tagger(BaseModel):
    """A user's model, whose parts with a size for each class are not called heads."""

    def __init__(self, num_classes: int, width: int = 16, hidden: int = 32, queries: int = 8) -> None:
        super().__init__()
        self.backbone = EfficientVMamba({'dims': [8], 'depths': [1]}, out_indices=(0,))
        self.neck = nn.Linear(8, width)
        self.decoder = nn.Sequential(nn.Linear(width, hidden), nn.Linear(hidden, width))
        self.queries = nn.Embedding(queries, width)
        self.label_embedding = nn.Embedding(num_classes + 1, width)
        self.classifier = nn.Linear(width, num_classes)
        self.boxes = nn.Linear(width, 4 * num_classes)
        self.bbox_head = nn.Linear(width, num_classes)

    def forward(self, *_: Any, **__: Any) -> None:
        """Not needed."""


CLASS_SIZED = {'label_embedding.weight', 'classifier.weight', 'classifier.bias', 'boxes.weight', 'boxes.bias'}


def tagger(num_classes: int, **options: int) -> tuple[nn.Module, Config]:
    cfg = Config({'model': dict(type=Tagger, num_classes=num_classes, **options)})
    return MODELS.build(cfg.model), cfg


def fit(model: nn.Module, cfg: Config | None, state: State, complete: bool = False, **options: Any) -> State:
    """What MMEngine gets to load, once the tools' hook has looked at a checkpoint."""
    runner, checkpoint = SimpleNamespace(model=model, cfg=cfg), {'state_dict': state, 'meta': {'epoch': 1}}
    StrictWeights('start.pth', complete, **options).after_load_checkpoint(runner, checkpoint)
    return checkpoint['state_dict']


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that loading logs."""
    lines: list[str] = []
    for module in (report, weights):
        monkeypatch.setattr(module, 'print_log', lambda line, **_: lines.append(line))
    return lines


@pytest.mark.parametrize('saved, wanted', [(80, 3), (80, 1), (1, 80), (2, 8), (7, 32)])
def test_training_starts_for_other_classes_whatever_their_parts_are_called(
    saved: int, wanted: int, log: list[str]
) -> None:
    source, (model, cfg) = tagger(saved)[0].state_dict(), tagger(wanted)
    before = copy.deepcopy(model.state_dict())
    state = fit(model, cfg, source)
    anew = CLASS_SIZED | {'bbox_head.weight', 'bbox_head.bias'}
    assert state.keys() == before.keys()
    assert all(torch.equal(value, (before if name in anew else source)[name]) for name, value in state.items())
    assert 'what differs in heads stays as initialised' in log[-1]
    assert {name for name in before if f' {name}' in log[-1].replace(',', '')} == CLASS_SIZED


OTHERS = [dict(width=32), dict(hidden=64), dict(hidden=16), dict(queries=16), dict(queries=2)]


@pytest.mark.parametrize('saved, wanted', [(80, 80), (80, 3), (8, 1), (1, 8)])
@pytest.mark.parametrize('other', OTHERS, ids=str)
def test_training_does_not_start_from_parts_of_another_size(saved: int, wanted: int, other: dict[str, int]) -> None:
    """However the number of classes may divide that size."""
    source, (model, cfg) = tagger(saved, **other)[0].state_dict(), tagger(wanted)
    with pytest.raises(CheckpointError, match=r'of another shape: (.|\n)*no more than its backbone'):
        fit(model, cfg, source)


def test_training_does_not_start_from_a_file_that_lacks_what_is_class_sized() -> None:
    source, (model, cfg) = tagger(80)[0].state_dict(), tagger(3)
    del source['label_embedding.weight']
    with pytest.raises(CheckpointError, match=r'1 missing: label_embedding\.weight'):
        fit(model, cfg, source)


def test_evaluation_takes_no_other_number_of_classes() -> None:
    source, (model, cfg) = tagger(80)[0].state_dict(), tagger(3)
    with pytest.raises(CheckpointError, match='7 of another shape: label_embedding'):
        fit(model, cfg, source, complete=True)


def test_a_model_that_cannot_be_built_for_more_classes_is_compared_as_it_is(log: list[str]) -> None:
    source, (model, cfg) = tagger(80)[0].state_dict(), tagger(3)
    cfg.model.no_such_option = 1
    with pytest.raises(CheckpointError, match='of another shape'):
        fit(model, cfg, source)


def test_resuming_refuses_a_model_with_fewer_parts() -> None:
    """The optimizer's state in the file is for all of them."""
    model, cfg = tagger(3)
    source = model.state_dict() | {'mask_head.conv.weight': torch.ones(2)}
    assert fit(model, cfg, source, complete=True).keys() == model.state_dict().keys()
    with pytest.raises(CheckpointError, match=r'more parts, such as mask_head\.conv\.weight(.|\n)*load_from='):
        fit(model, cfg, source, complete=True, resume=True)


def runner_loads(model: nn.Module, state: State) -> None:
    """What MMEngine's runner does after the hook."""
    _load_checkpoint_to_model(model, {'state_dict': state}, strict=True, revise_keys=[(r'^module.', '')])


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    'compiled': torch.compile,
    'its backbone compiled': lambda model: model.add_module('backbone', torch.compile(model.backbone)) or model,
    'in a part called module': lambda model: nn.ModuleDict({'module': model}),
    'in a part called detector': lambda model: nn.ModuleDict({'detector': model}),
}


@pytest.mark.parametrize('wrap', WRAPPED.values(), ids=WRAPPED.keys())
@pytest.mark.parametrize('prefix', ['', '_orig_mod.', 'module.', 'model.module.'])
def test_mmengine_fills_wrapped_models_from_wrapped_names(wrap: Callable, prefix: str) -> None:
    source, (model, cfg) = tagger(3)[0].state_dict(), tagger(3)
    model = wrap(model)
    runner_loads(model, fit(model, cfg, {prefix + name: value for name, value in source.items()}, complete=True))
    own = model.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(own.values(), source.values(), strict=True))


def library_config(library: str, path: str) -> Config:
    """A config of a library with our backbone, or one of ours; no data is needed to build its model."""
    if path.endswith('_evm_t.py') or 'evm_t_' in path:
        return Config.fromfile(ROOT / 'configs' / path)
    cfg = Config.fromfile(Path(import_module(library).__file__).parent / '.mim/configs' / path)
    cfg.model.backbone = dict(type='mmevm.EfficientVMamba', arch='tiny', out_indices=(1, 2, 3))
    cfg.model.neck.in_channels = [96, 192, 384]
    return cfg


def built(library: str, cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope(library), torch.device('meta'):  # names and shapes alone
        return MODELS.build(copy.deepcopy(cfg.model))


DETECTORS = {
    'dino/dino-4scale_r50_8xb2-12e_coco.py': 'dn_query_generator.label_embedding.weight',
    'ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py': 'dn_query_generator.label_embedding.weight',
}


@pytest.mark.parametrize('path, name', DETECTORS.items(), ids=[path.partition('/')[0] for path in DETECTORS])
def test_mmdets_detectors_are_tuned_for_other_classes(path: str, name: str, log: list[str]) -> None:
    pytest.importorskip('mmdet')
    cfg = library_config('mmdet', path)
    source = built('mmdet', cfg).state_dict()
    cfg.model.bbox_head.num_classes = 1
    model = built('mmdet', cfg)
    with DefaultScope.overwrite_default_scope('mmdet'):
        fit(model, cfg, source)
        assert log[-1].endswith(f'depends on the number of classes: {name}')
        cfg.model.encoder.layer_cfg.ffn_cfg.feedforward_channels = 512
        with pytest.raises(CheckpointError, match=r'of another shape: (.|\n)*no more than its backbone'):
            fit(built('mmdet', cfg), cfg, source)


PARTS: dict[str, tuple[str, str, Callable[[Config], Any], str]] = {
    'auxiliary head': ('mmseg', 'upernet_evm_t.py', lambda m: m.update(auxiliary_head=None), 'auxiliary_head'),
    'mask head': ('mmdet', 'mask_rcnn_evm_t_1x.py', lambda m: m.roi_head.update(mask_head=None), 'roi_head.mask_head'),
    'masks': (
        'mmdet',
        'mask_rcnn_evm_t_1x.py',
        lambda m: m.roi_head.update(mask_head=None, mask_roi_extractor=None),
        'roi_head.mask_head',
    ),
}


@pytest.mark.parametrize('library, path, remove, part', PARTS.values(), ids=PARTS.keys())
def test_evaluation_leaves_out_what_the_config_leaves_out(
    library: str, path: str, remove: Callable, part: str, log: list[str]
) -> None:
    pytest.importorskip(library)
    cfg = library_config(library, path)
    whole = built(library, cfg)
    remove(cfg.model)
    model = built(library, cfg)
    fit(model, cfg, whole.state_dict(), complete=True)
    assert log[-1].startswith(f'loaded {len(model.state_dict())} tensors from start.pth; dropped {part}')
    with pytest.raises(CheckpointError, match=rf'missing: {part}\.'):
        fit(whole, cfg, model.state_dict(), complete=True)
