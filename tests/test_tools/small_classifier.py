"""configs/classifier_evm_t.py as a training run of seconds on twelve images."""

from pathlib import Path

from demo.mini_data import make_mini_data

ROOT = Path(__file__).resolve().parents[2]
TRAIN_IMAGES, VAL_IMAGES, BATCH = 12, 5, 4

_CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmevm', 'tests.test_tools.recorder'], allow_failed_imports=False)
load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
crop = [dict(type='ResizeEdge', scale=32), dict(type='CenterCrop', crop_size=32)]
train_crop = crop
loader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, dataset=dict(data_root={data!r}, pipeline=[load, *crop, pack]), **loader)
test_dataloader = val_dataloader
# The learning rate is high from the first iteration on, so that a wrong gradient shows in the next loss.
param_scheduler = []
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))
custom_hooks = _base_.custom_hooks + [dict(type='Recorder', folder='losses', kill_at=None)]
train_cfg = dict(max_epochs=2, val_interval=2)
{changes}
train_dataloader = dict(
    batch_size={batch}, dataset=dict(data_root={data!r}, pipeline=[load, *train_crop, pack]), **loader)
"""
#: Nothing random and nothing that depends on the other images of a batch; and the steps of SGD grow with the gradient,
#: as those of Adam do not.
FROZEN = """
model = dict(backbone=dict(norm_eval=True, drop_path_rate=0.), train_cfg=None)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(
    _delete_=True, type='SGD', lr=3e-3, momentum=0.9, weight_decay=0.04), clip_grad=None)
randomness = dict(seed=0)
"""


def write_config(path: Path, data: Path, changes: str, batch: int = BATCH) -> Path:
    """Write a config for the images of :func:`write_pictures`; a run writes its losses to ``losses/``."""
    base = str(ROOT / 'configs/classifier_evm_t.py')
    path.write_text(_CONFIG.format(base=base, data=str(data), changes=changes, batch=batch))
    return path


def write_pictures(folder: Path) -> Path:
    """Render the images; returns the data root."""
    return make_mini_data(folder, ['imagenet'], image_size=64, train_images=TRAIN_IMAGES, val_images=VAL_IMAGES)[
        0
    ].data_root
