"""Miniature ImageNet-1k: ``{train,val}/<wnid>/*.JPEG`` and ``meta/{train,val}.txt``.

Without the meta files mmpretrain numbers the folders it finds and wants 1000 of them; with them, each picture keeps its
class's true index among the 1000.
"""

from pathlib import Path

from PIL import Image

from demo.mini_data.categories import IMAGENET_SHAPES
from demo.mini_data.options import SPLITS, Options, Progress
from demo.mini_data.scene import JPEG_QUALITY, SceneStyle, render_scene

_EXTENTS = (0.4, 0.85)


def _write_split(root: Path, options: Options, split: str, progress: Progress) -> None:
    shapes = sorted(IMAGENET_SHAPES)
    lines = []
    for index in progress(options.count(split), f'imagenet/{split}'):
        shape = shapes[index % len(shapes)]
        label, wnid = IMAGENET_SHAPES[shape]
        style = SceneStyle(groups=((shape,),), counts=(1, 1), extents=_EXTENTS)
        scene = render_scene(options.rng(split, index), options.image_size, style)
        name = f'{wnid}_{index + 1}.JPEG' if split == 'train' else f'ILSVRC2012_val_{index + 1:08d}.JPEG'
        folder = root / split / wnid
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(folder / name, quality=JPEG_QUALITY)
        lines.append(f'{wnid}/{name} {label}')
    (root / 'meta' / f'{split}.txt').write_text('\n'.join(sorted(lines)) + '\n', encoding='utf-8')


def write_imagenet(root: Path, options: Options, progress: Progress) -> None:
    """Render both splits of miniature ImageNet, the classes taking turns.

    Args:
        root (Path): Empty folder, which becomes the ``data_root``.
        options (Options): Seed, picture size and counts.
        progress (Progress): Shows how far the rendering is.
    """
    (root / 'meta').mkdir()
    for split in SPLITS:
        _write_split(root, options, split, progress)
