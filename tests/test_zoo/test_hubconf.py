"""hubconf.py: the zoo for ``torch.hub``."""

import runpy
from pathlib import Path

import pytest
import torch

from mmevm.backbones import EfficientVMamba, Vim
from mmevm.zoo import ENTRIES, loader

ROOT = Path(__file__).resolve().parents[2]


def test_entry_points_are_the_zoo() -> None:
    content = runpy.run_path(str(ROOT / 'hubconf.py'))
    # What torch.hub takes for entry points.
    entry_points = {name: value for name, value in content.items() if callable(value) and name[0] != '_'}
    assert set(entry_points) == {name for name, entry in ENTRIES.items() if entry.available}
    assert "'classification' gives the complete" in entry_points['efficient_vmamba_tiny'].__doc__
    assert all(name == value.__name__ for name, value in entry_points.items())


@pytest.mark.parametrize('name, kind', [('efficient_vmamba_tiny', EfficientVMamba), ('vim_tiny_stride8', Vim)])
def test_models_with_random_weights(name: str, kind: type) -> None:
    model = torch.hub.load(str(ROOT), name, source='local', pretrained=False)
    assert type(model) is kind
    (*_, last) = model(torch.zeros(1, 3, 64, 64))
    assert last.isfinite().all()


def test_released_weights_are_those_of_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr('mmevm.zoo.load', lambda *arguments: asked.append(arguments))
    torch.hub.load(str(ROOT), 'vmamba_v2_tiny_s1l8', source='local', task='classification')
    assert asked == [('vmamba_v2_tiny_s1l8', 'classification')]


def test_tasks_without_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="`task` must be None or 'classification'"):
        loader.build('efficient_vmamba_tiny', 'detection')


@pytest.mark.parametrize('pretrained', ['false', 0, None])
def test_pretrained_is_a_truth_value(pretrained: object) -> None:
    with pytest.raises(TypeError, match='`pretrained` must be True or False, got '):
        torch.hub.load(str(ROOT), 'efficient_vmamba_tiny', source='local', pretrained=pretrained)
