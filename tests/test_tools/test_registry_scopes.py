"""Each library's scope finds the backbone by both its names, and the zoo, in a process that has not imported mmevm."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.openmmlab

SCOPES = ('mmdet', 'mmseg', 'mmpretrain', 'mmengine')
# Each scope has a process of its own, forked when the libraries are imported. The scoped name must find the package by
# itself; the plain one needs the import that a config makes.
SCRIPT = """
import os
import sys
from importlib import import_module
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

def look(scope, MODELS):
    DefaultScope.get_instance('fresh', scope_name=scope)
    scoped = MODELS.build(dict(type='mmevm.EfficientVMamba', arch='tiny', out_indices=(3,)))
    Config.fromstring("custom_imports = dict(imports=['mmevm'], allow_failed_imports=False)", '.py')
    plain = MODELS.build(dict(type='EfficientVMamba', arch='tiny', out_indices=(3,)))
    assert type(plain) is type(scoped)
    print(scope, type(scoped).__qualname__, 'mmevm://' in CheckpointLoader._schemes, flush=True)

registries = {scope: import_module(scope + '.registry').MODELS for scope in sys.argv[1:]}
assert 'mmevm' not in sys.modules
for scope, MODELS in registries.items():
    child = os.fork()
    if not child:
        look(scope, MODELS)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_backbone_builds_by_both_names_and_the_zoo_is_known_in_every_scope() -> None:
    done = subprocess.run([sys.executable, '-c', SCRIPT, *SCOPES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-len(SCOPES) :] == [f'{scope} EfficientVMamba True' for scope in SCOPES], (
        done.stderr
    )
