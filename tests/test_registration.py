"""`import mmevm` without torch: whatever is imported next finds mmevm registered, and every module is executed once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REGISTERED = """
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
assert MODELS.get('EfficientVMamba') is MODELS.get('mmevm.EfficientVMamba') is mmevm.backbones.EfficientVMamba
assert 'mmevm://' in CheckpointLoader._schemes
"""


@pytest.mark.parametrize('name', ['torch', 'mmengine', 'mmevm.backbones', 'mmevm.zoo'])
def test_import_registers_mmevm_first(name: str) -> None:
    code = f"""
import sys, mmevm
assert not {{'torch', 'mmengine'}} & set(sys.modules)
import {name}
module = sys.modules[{name!r}]
assert module.__spec__.origin == module.__file__ and type(module.__spec__.loader).__name__ == 'SourceFileLoader'
import mmevm.ops, torch.nn
{REGISTERED}"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
