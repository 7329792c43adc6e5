"""`mmevm.engine.checks.samples`: what a model would not be trained on, and images that it does not take."""

import json
from pathlib import Path

import pytest
from PIL import Image

from mmevm.engine.checks.samples import SampleError
from mmevm.errors import UsageError

from .test_image_files import encoded
from .test_images import build, classification, scope  # noqa: F401 (a fixture)

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize('poly2mask', [True, False])
@pytest.mark.parametrize('crowd', [0, 1])
def test_run_lengths_are_refused_where_polygons_alone_are_loaded(poly2mask: bool, crowd: int, tmp_path: Path) -> None:
    from mmengine.registry import DefaultScope

    polygon = [[0, 0, 32, 0, 32, 32, 0, 32]]
    masks = [polygon, {'size': [64, 64], 'counts': [0, 32, 4064]}]
    annotations = [
        dict(id=index + 1, image_id=0, category_id=1, bbox=[0, 0, 32, 32], area=1024, iscrowd=crowd, segmentation=mask)
        for index, mask in enumerate(masks)
    ]
    images = [dict(id=0, file_name='0.jpg', height=64, width=64)]
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='cat')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    (tmp_path / '0.jpg').write_bytes(encoded())
    loading = dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=poly2mask)
    settings = dict(ann_file='a.json', data_prefix=dict(img=''), metainfo=dict(classes=('cat',)))
    dataset = dict(
        settings, type='CocoDataset', data_root=str(tmp_path), pipeline=[dict(type='LoadImageFromFile'), loading]
    )
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=dataset)
    with DefaultScope.overwrite_default_scope('mmdet'):
        build(loader, is_training=False)
        if poly2mask or crowd:
            build(loader)
        else:
            with pytest.raises(UsageError, match=r'0\.jpg has an object with run lengths .*Set poly2mask=True'):
                build(loader)
            assert len(build(loader, skip=True).dataset) == 1


@pytest.mark.parametrize(
    ('mode', 'colour', 'channels', 'found'),
    [
        ('RGB', 'unchanged', 4, 3),
        ('RGBA', 'unchanged', 3, 4),
        ('RGB', 'unchanged', 1, 3),
        ('L', 'unchanged', 4, 1),
        ('RGBA', 'unchanged', 4, None),
        ('L', 'grayscale', 1, None),
        ('RGB', 'color', 3, None),
        ('L', 'grayscale', 3, None),
        ('RGB', 'color', None, None),
    ],
)
@pytest.mark.parametrize('is_training', [True, False])
@pytest.mark.usefixtures('scope')
def test_images_of_other_channels_than_the_models_are_named(
    mode: str, colour: str, channels: int | None, found: int | None, is_training: bool, tmp_path: Path
) -> None:
    loader = classification(tmp_path, {})
    loader['dataset']['pipeline'][0]['color_type'] = colour
    for name in 'a', 'b':
        (tmp_path / name).mkdir()
        Image.new(mode, (16, 12)).save(tmp_path / name / '1.png')
    built = build(loader, is_training=is_training, channels=channels)
    if found is None:
        assert len(list(built)) == 2
    else:
        with pytest.raises(SampleError, match=rf'1\.png has {found} channels .* the model takes {channels}'):
            list(built)
