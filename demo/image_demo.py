"""Draw what a model finds in a picture: ``python demo/image_demo.py IMAGE --model NAME [--weights FILE]``.

NAME is one of the metafiles' models or the path of a config: a detector, an instance or semantic segmentor, or a
classifier. Weights come from the zoo where whole models were released, which is classifiers and what is around VMamba;
for others ``--weights`` has to name the checkpoint of a training.
"""

import argparse
import runpy
import tempfile
from collections.abc import Sequence
from pathlib import Path

try:
    import cv2
    import numpy as np

    from mmevm.cli.config import read_config
    from mmevm.cli.errors import UsageError, exit_status
    from mmevm.inferencers import config_path, models, released_weights
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[1])
    parser.add_argument('image', type=Path, help='picture file')
    parser.add_argument('--model', required=True, help=f'{", ".join(models())}; or a config file')
    parser.add_argument('--weights', help='checkpoint file, address, or mmevm://NAME (default: the released weights)')
    parser.add_argument('--out', type=Path, help='picture to write (default: outputs/<image>_<model>.png)')
    parser.add_argument('--score', type=float, default=0.3, help='draw detections from this score on (default: 0.3)')
    parser.add_argument('--device', help='e.g. cpu or cuda:0 (default: a GPU if there is one)')
    return parser.parse_args(argv)


def find_model(model: str, weights: str | None) -> tuple[Path, str]:
    """The config and the weights that the arguments mean.

    Raises:
        UsageError: There is no such model, or no weights of it.
    """
    named = model in models()
    if not named and not Path(model).is_file():
        raise UsageError(f'--model {model} is neither a config file nor one of {", ".join(models())}.')
    weights = weights or (released_weights(model) if named else None)
    if weights is None:
        raise UsageError(f'No weights of {model} were released. Name the checkpoint of a training: --weights FILE')
    if '://' not in weights and not Path(weights).expanduser().is_file():
        raise UsageError(f'Checkpoint not found: {Path(weights).expanduser().absolute()}')
    return config_path(model) if named else Path(model), weights


def detect(config: str, weights: str, args: argparse.Namespace) -> np.ndarray:
    """Boxes, and masks where the model finds any, over the picture (uint8 RGB [H, W, 3])."""
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(config, weights, device=args.device, show_progress=False)
    found = inferencer(str(args.image), return_vis=True, no_save_vis=True, pred_score_thr=args.score)
    scores = [score for score in found['predictions'][0]['scores'] if score >= args.score]
    print(f'{len(scores)} objects of score {args.score} or more')
    return found['visualization'][0]


def segment(config: str, weights: str, args: argparse.Namespace) -> np.ndarray:
    """The class of every pixel as a colour over the picture (uint8 RGB [H, W, 3])."""
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer(config, weights, device=args.device)
    inferencer.show_progress = False
    found = inferencer(str(args.image), return_vis=True)
    labels, counts = np.unique(found['predictions'], return_counts=True)
    classes = inferencer.model.dataset_meta['classes']
    for label, count in sorted(zip(labels, counts, strict=True), key=lambda pair: -pair[1])[:5]:
        print(f'{classes[label]}: {count / found["predictions"].size:.1%} of the picture')
    return found['visualization']


def classify(config: str, weights: str, args: argparse.Namespace) -> np.ndarray:
    """The best class and its score written into the picture (uint8 RGB [H, W, 3])."""
    from mmpretrain import ImageClassificationInferencer

    inferencer = ImageClassificationInferencer(config, weights, device=args.device)
    with tempfile.TemporaryDirectory() as folder:
        # Without a folder to write to, it draws nothing.
        best = inferencer(str(args.image), show_dir=folder)[0]
        drawn = cv2.imread(str(next(Path(folder).iterdir())))[..., ::-1]
    print(f'{best.get("pred_class", best["pred_label"])}: {best["pred_score"]:.1%}')
    return drawn


TASKS = {'mmdet': detect, 'mmseg': segment, 'mmpretrain': classify}


def draw(args: argparse.Namespace) -> None:
    """Runs the model on the picture and writes the drawing."""
    if cv2.imread(str(args.image)) is None:
        raise UsageError(f'No picture can be read from {args.image.absolute()}')
    config, weights = find_model(args.model, args.weights)
    scope = read_config(config).get('default_scope')
    if scope not in TASKS:
        raise UsageError(f'{config} must have a default_scope of {", ".join(TASKS)}, got {scope}')
    drawing = TASKS[scope](str(config), weights, args)
    out = args.out or Path('outputs') / f'{args.image.stem}_{config.stem}.png'
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), drawing[..., ::-1]):
        raise UsageError(f'The drawing cannot be written to {out.absolute()}')
    print(f'drawn: {out}')


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse_args(argv)
    return exit_status(lambda: draw(args))


if __name__ == '__main__':
    raise SystemExit(main())
