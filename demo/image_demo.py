"""Draw a model's predictions on images: ``python demo/image_demo.py IMAGE… --model NAME [--weights FILE]``.

IMAGE is a file, a folder or an address. NAME is one of the metafiles' models or the path of a config: a detector, an
instance or semantic segmentor, or a classifier. Weights come from the zoo if complete models were released, which holds
for classifiers and all models with VMamba; for others ``--weights`` must name a training checkpoint.
"""

import argparse
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package demo
try:
    import cv2
    import numpy as np
    import torch

    from demo.image_inputs import ImageError, find_images, plan_outputs, prepare_folder, read_image, write_image
    from mmevm.engine.checks.channels import image_channels
    from mmevm.engine.config import read_config
    from mmevm.errors import UsageError, exit_status
    from mmevm.inferencers import config_path, models, released_weights
    from mmevm.registry import scope_of
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

DRAWN_PIXELS = 2**21
"""Full HD. A larger image is drawn on a smaller copy, as a pixel takes a number for every class or mask."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[1])
    parser.add_argument('image', nargs='+', help='image file, folder of images, or http(s) address')
    parser.add_argument('--model', required=True, help=f'{", ".join(models())}; or a config file')
    parser.add_argument('--weights', help='checkpoint file, address, or mmevm://NAME (default: the released weights)')
    parser.add_argument(
        '--out', type=Path, help='image to write, or the folder for several (default: outputs/<image>_<model>.png)'
    )
    parser.add_argument('--score', type=float, default=0.3, help='draw detections from this score on (default: 0.3)')
    parser.add_argument('--device', help='e.g. cpu or cuda:0 (default: a GPU if there is one)')
    return parser.parse_args(argv)


def find_model(model: str, weights: str | None) -> tuple[Path, str]:
    """Return the config and the weights of the arguments.

    Raises:
        UsageError: If there is no such model, or no weights of it.
    """
    named = model in models()
    if not named and not Path(model).is_file():
        raise UsageError(f'--model {model} is neither a config file nor one of {", ".join(models())}.')
    weights = weights or (released_weights(model) if named else None)
    if weights is None:
        raise UsageError(f'No weights of {model} were released. Name the checkpoint of a training run: --weights FILE')
    if '://' not in weights and not Path(weights).expanduser().is_file():
        raise UsageError(f'Checkpoint not found: {Path(weights).expanduser().absolute()}')
    return config_path(model) if named else Path(model), weights


def reduced(image: np.ndarray) -> np.ndarray:
    """Return the image, or a copy of :data:`DRAWN_PIXELS` of a larger one."""
    height, width = image.shape[:2]
    # Matplotlib takes no side beyond 2**16.
    scale = min(1.0, (DRAWN_PIXELS / (height * width)) ** 0.5, 2**14 / max(height, width))
    if scale == 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def predict(inferencer: Any, image: np.ndarray, canvas: np.ndarray) -> Any:
    """Return predictions in the pixels of ``canvas``; the config's pipeline sees the image at its full size."""
    data = inferencer.pipeline(image)
    if canvas is not image:
        # Models bring their predictions back to the original size, at which masks and scores of a large image take
        # gigabytes: let the copy's be the original one.
        sample = data['data_samples']
        width, height = sample.metainfo.get('scale_factor', (1.0, 1.0))
        width *= image.shape[1] / canvas.shape[1]
        height *= image.shape[0] / canvas.shape[0]
        sample.set_metainfo({'ori_shape': canvas.shape[:2], 'scale_factor': (width, height)})
    return inferencer.forward(inferencer.collate_fn([data]))[0]


def load_detector(config: str, weights: str, device: str | None) -> Any:
    """Return mmdet's inferencer."""
    from mmdet.apis import DetInferencer

    return DetInferencer(config, weights, device=device)


def detect(inferencer: Any, image: np.ndarray, canvas: np.ndarray, score: float) -> np.ndarray:
    """Draw boxes, and masks if the model has any."""
    sample = predict(inferencer, image, canvas)
    found = int((sample.pred_instances.scores >= score).sum())
    print(f'{found} objects of score {score} or more')
    return inferencer.visualize([canvas[..., ::-1]], [sample], return_vis=True, pred_score_thr=score)[0]


def load_segmentor(config: str, weights: str, device: str | None) -> Any:
    """Return mmseg's inferencer."""
    from mmseg.apis import MMSegInferencer

    return MMSegInferencer(config, weights, device=device)


def segment(inferencer: Any, image: np.ndarray, canvas: np.ndarray, score: float) -> np.ndarray:
    """Draw the class of every pixel as a colour."""
    sample = predict(inferencer, image, canvas)
    labels, counts = np.unique(sample.pred_sem_seg.data.cpu().numpy(), return_counts=True)
    classes = inferencer.model.dataset_meta['classes']
    for label, count in sorted(zip(labels, counts, strict=True), key=lambda pair: -pair[1])[:5]:
        print(f'{classes[label]}: {count / counts.sum():.1%} of the image')
    return inferencer.visualize([canvas[..., ::-1]], [sample], return_vis=True)[0]


def load_classifier(config: str, weights: str, device: str | None) -> Any:
    """Return mmpretrain's inferencer."""
    from mmpretrain import ImageClassificationInferencer

    return ImageClassificationInferencer(config, weights, device=device)


def classify(inferencer: Any, image: np.ndarray, canvas: np.ndarray, score: float) -> np.ndarray:
    """Draw the best class and its score as text."""
    from mmpretrain.visualization import UniversalVisualizer

    (sample,) = inferencer.forward(next(inferencer.preprocess([image])))
    (best,) = inferencer.postprocess([sample], None)
    print(f'{best.get("pred_class", best["pred_label"])}: {best["pred_score"]:.1%}')
    visualizer = UniversalVisualizer()
    visualizer.visualize_cls(canvas[..., ::-1], sample, classes=inferencer.classes, draw_gt=False)
    return visualizer.get_image()


@dataclass(frozen=True)
class Task:
    """The task of one library's models.

    Attributes:
        load (Callable): From config, weights and device to the library's inferencer.
        draw (Callable): From inferencer, image, copy to draw on (both BGR) and score to the drawing (RGB).
    """

    load: Callable[[str, str, str | None], Any]
    draw: Callable[[Any, np.ndarray, np.ndarray, float], np.ndarray]


TASKS = {
    'mmdet': Task(load_detector, detect),
    'mmseg': Task(load_segmentor, segment),
    'mmpretrain': Task(load_classifier, classify),
}


def find_task(config: Path) -> Task:
    """Return the task of a config, by its ``default_scope``.

    Raises:
        UsageError: If it is no config, or of another or a missing library, or takes other than three channels.
    """
    cfg = read_config(config)
    scope = scope_of(cfg)
    if scope not in TASKS:
        raise UsageError(f'{config} must have a default_scope of {", ".join(TASKS)}, got {scope}')
    if (channels := image_channels(cfg)) != 3:
        raise UsageError(f'{config} is for images of {channels} channels; the demo reads and draws colour images only.')
    return TASKS[scope]


def require_device(device: str | None) -> None:
    """Raise a UsageError for a device that torch cannot use here."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f'--device {device} cannot be used: {str(error).splitlines()[0]}') from error


def draw_image(task: Task, inferencer: Any, origin: str, image: np.ndarray, score: float) -> np.ndarray:
    """Run the model on an image; return the drawing (BGR).

    Raises:
        ImageError: If the config's pipeline or the model fails on the image.
    """
    canvas = reduced(image)
    size, drawn = (f'{array.shape[1]} × {array.shape[0]}' for array in (image, canvas))
    if canvas is not image:
        print(f'{origin} has {size} pixels; the drawing has {drawn}')
    try:
        return task.draw(inferencer, image, canvas, score)[..., ::-1]
    except Exception as error:  # pipeline and model are the user's, and the other images are still to be drawn
        reason = (str(error).splitlines() or [''])[0]
        raise ImageError(
            f'{origin} ({size} pixels) cannot be processed by this model: {type(error).__name__}: {reason}'
        ) from error


def draw(args: argparse.Namespace) -> None:
    """Run the model on all images and write the drawings; print which images are left out."""
    images = find_images(args.image)
    config, weights = find_model(args.model, args.weights)
    task = find_task(config)
    require_device(args.device)
    targets = plan_outputs(images, args.out, config.stem)
    prepare_folder(targets[0].parent)
    inferencer, failed = None, []
    for image, target in zip(images, targets, strict=True):
        try:
            pixels = read_image(image.origin)
            inferencer = inferencer or task.load(str(config), weights, args.device)
            drawing = draw_image(task, inferencer, image.origin, pixels, args.score)
        except ImageError as error:
            failed.append(error)
            if len(images) > 1:
                print(f'left out: {error}', file=sys.stderr)
            continue
        write_image(target, drawing)
        print(f'drawn: {target}', flush=True)
    if failed:
        raise UsageError(f'{len(failed)} of {len(images)} images were left out' if len(images) > 1 else str(failed[0]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: draw(args))


if __name__ == '__main__':
    sys.stdout.reconfigure(errors='backslashreplace')  # names of files can be any bytes
    raise SystemExit(main())
