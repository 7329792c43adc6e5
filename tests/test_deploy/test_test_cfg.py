"""What a detector's ``test_cfg`` must have for a file."""

import pytest
from mmengine.config import Config

from mmevm.deploy.two_stage import exported_detector
from mmevm.engine.tasks import build_model
from mmevm.errors import UsageError
from tests.test_deploy import toy

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize(
    ('part', 'change', 'message'),
    [
        ('rcnn', dict(max_per_img=-1), 'max_per_img=-1; a file has a fixed number of boxes'),
        ('rpn', dict(max_per_img=0), 'RPNHead .* max_per_img=0'),
        ('rcnn', dict(max_per_img=None), 'lacks max_per_img'),
        ('rpn', dict(nms=None), 'RPNHead .* lacks nms'),
        ('rcnn', dict(score_thr=None), 'lacks score_thr'),
        ('rcnn', dict(mask_thr_binary=-1), 'mask_thr_binary=-1, not a number between 0 and 1'),
        ('rcnn', dict(nms=dict(type='nms')), 'iou_threshold=None'),
        ('rpn', dict(nms_pre='many'), 'nms_pre=many, not a number'),
        ('dense', dict(max_per_img=-1), 'RetinaHead .* max_per_img=-1'),
        ('dense', dict(max_per_img=None, nms=None), 'RetinaHead .* lacks nms, max_per_img'),
    ],
)
def test_test_settings_that_a_file_cannot_have(part: str, change: dict, message: str) -> None:
    config = toy.retinanet() if part == 'dense' else toy.mask_rcnn()
    settings = config['model']['test_cfg'] if part == 'dense' else config['model']['test_cfg'][part]
    settings |= change
    for key in [key for key, value in settings.items() if value is None]:
        del settings[key]
    with pytest.raises(UsageError, match=f'cannot be exported: its .*{message}' if ' ' not in message else message):
        exported_detector(build_model(Config(config), 'meta'))
