"""Each library's scope finds the backbone by both its names, and the zoo, in a process that knows nothing yet."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.openmmlab

# The scoped name must find the package by itself; the plain one needs the import that a config makes.
SCRIPT = """
from importlib import import_module
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

DefaultScope.get_instance('fresh', scope_name={scope!r})
MODELS = import_module({scope!r} + '.registry').MODELS
scoped = MODELS.build(dict(type='mmevm.EfficientVMamba', arch='tiny', out_indices=(3,)))
Config.fromstring("custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)", '.py')
plain = MODELS.build(dict(type='EfficientVMamba', arch='tiny', out_indices=(3,)))
print(type(scoped).__qualname__, type(plain) is type(scoped), 'mmevm://' in CheckpointLoader._schemes)
"""


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
def test_backbone_builds_by_both_names_and_the_zoo_is_known_in_the_scope_of(scope: str) -> None:
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(scope=scope)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'EfficientVMamba True True'
