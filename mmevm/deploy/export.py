"""``tools/export.py``: from a config and a checkpoint to one ONNX file that agrees with PyTorch."""

import argparse
import io
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import onnx.inliner
import onnx_ir
import onnxruntime
import torch
from mmengine.logging import MMLogger
from mmengine.runner import load_state_dict
from torch import Tensor, nn

from mmevm.checkpoint import CheckpointError, load_checkpoint
from mmevm.checkpoint.align import has_backbone
from mmevm.checkpoint.load import open_checkpoint
from mmevm.deploy.graph import fixed_axes, to_onnx, to_program
from mmevm.deploy.models import (
    ExportedBackbone,
    ExportedClassifier,
    ExportedModel,
    ExportedSegmentor,
    Normalization,
    Results,
)
from mmevm.deploy.quantization import calibration_images, quantize
from mmevm.deploy.settings import describe_input, find_classes
from mmevm.deploy.two_stage import exported_detector
from mmevm.engine.config import load_config, require_checkpoint
from mmevm.engine.options import add_cfg_options
from mmevm.engine.runner.latest import read_meta
from mmevm.engine.tasks import build_model
from mmevm.errors import UsageError, exit_status, size, write_fault
from mmevm.files import file_hash, replacing
from mmevm.registry import BACKBONES
from mmevm.version import __version__
from mmevm.zoo import fetch

SIZES = ((1, 64, 96), (2, 97, 131), (1, 160, 128))
"""Batch, height and width of the images on which a file is compared with PyTorch."""


class Plan(NamedTuple):
    """What is written, and how.

    Attributes:
        out (Path): The file.
        verify (bool): It is compared with PyTorch.
        inline (bool): Its scans are in standard operators.
        images (Sequence[Path]): What 8-bit products are calibrated on; none keep float32.
        size (tuple[int, int], optional): Fixed height and width of the images.
    """

    out: Path
    verify: bool = True
    inline: bool = False
    images: Sequence[Path] = ()
    size: tuple[int, int] | None = None


def parse_args(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse the command line (default: the process's own) to the arguments of :func:`export`."""
    parser = argparse.ArgumentParser(
        description='Export a detector, segmentor, classifier or backbone to ONNX, and compare the file with PyTorch.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', nargs='?', help="checkpoint (default: the weights of the config's init_cfg)")
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='file to write')
    parser.add_argument(
        '--format', choices=['onnx', 'pt2'], default='onnx', help='ONNX, or a program of torch.export (default: onnx)'
    )
    parser.add_argument('--backbone', action='store_true', help="export the model's backbone alone")
    parser.add_argument('--logits', action='store_true', help='raw outputs of a classifier or segmentor')
    parser.add_argument(
        '--with-preprocessing',
        action='store_true',
        help='take uint8 RGB images [batch, 3, height, width] and normalise them in the graph',
    )
    parser.add_argument(
        '--int8', metavar='FOLDER', help='quantize products to 8 bits, calibrated on images of this folder'
    )
    parser.add_argument(
        '--inline', action='store_true', help='standard operators alone, for runtimes without ONNX functions (OpenVINO)'
    )
    parser.add_argument(
        '--image-size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='fix the size of the images, for models and runtimes that take one size only',
    )
    parser.add_argument('--no-verify', dest='verify', action='store_false', help='skip the comparison with PyTorch')
    add_cfg_options(parser, 'changes to the config, e.g. model.test_cfg.max_per_img=50')
    return vars(parser.parse_args(argv))


def export(
    config: str,
    checkpoint: str | None = None,
    *,
    out: Path,
    backbone: bool = False,
    logits: bool = False,
    with_preprocessing: bool = False,
    format: str = 'onnx',
    verify: bool = True,
    int8: str | None = None,
    inline: bool = False,
    image_size: Sequence[int] | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> None:
    """Export a config's model to a file.

    Args:
        config (str): Config file.
        checkpoint (str, optional): Checkpoint file, address or ``mmevm://NAME``, which is loaded strictly.
        out (Path): The file to write; it is written only if it agrees with PyTorch.
        backbone (bool): Export the backbone alone.
        logits (bool): Raw outputs of a classifier or segmentor.
        with_preprocessing (bool): Take uint8 RGB images.
        format (str): 'onnx', or 'pt2' for a program of ``torch.export``.
        verify (bool): Compare with PyTorch at three sizes.
        inline (bool): Write the scans in standard operators alone instead of as nodes with a function.
        image_size (Sequence[int], optional): Height and width, which are then fixed.
        int8 (str, optional): Folder of images, as the model will see them, on which 8-bit products are calibrated.
        cfg_options (Mapping[str, Any], optional): Changes to the config by dotted key.

    Raises:
        UsageError: The model cannot be exported, or the file does not agree.
        CheckpointError: The checkpoint does not fit.
    """
    size = _image_size(image_size) if image_size else None
    plan = Plan(Path(out), verify, inline, calibration_images(int8) if int8 else [], size)
    _require_target(plan, format)
    cfg = load_config(config, cfg_options)
    if checkpoint:
        require_checkpoint(checkpoint)
    settings = describe_input(cfg, with_preprocessing, size, backbone)
    if settings['resize'] is None and plan.images:
        raise UsageError('--int8 needs to know how images are prepared, and the test pipeline has a step of its own.')
    path = checkpoint and _local(checkpoint)
    meta = read_meta(path) if path else {}
    names = None if backbone else find_classes(cfg, meta)
    print(f'[1/4] building {config}', flush=True)
    model = build_model(cfg)
    origin = _load(model, checkpoint, path)
    _require_finite(model, checkpoint or config)
    exported = wrap(cfg, model.eval(), backbone, logits).eval()
    exported.requires_grad_(False)
    if with_preprocessing:
        exported.preprocessing = Normalization(settings['mean'], settings['std'], settings['color'] == 'BGR')
        settings |= {'dtype': 'uint8', 'color': 'RGB', 'range': [0, 255], 'mean': None, 'std': None}

    print(f'[2/4] exporting {type(model).__name__}: {", ".join(exported.outputs)}', flush=True)
    if 'window' in exported.options:
        print('      the config predicts in sliding windows; the file takes each image as a whole', flush=True)
    metadata = {
        'task': exported.task,
        'classes': names if exported.task != 'backbone' else None,
        'input': settings,
        'options': exported.options,
        'config': Path(config).name,
        **origin,
        'mmevm_version': __version__,
    }
    _write(exported, metadata, plan)


def _image_size(sides: Sequence[int]) -> tuple[int, int]:
    height, width = sides
    if min(sides) < 1:
        raise UsageError(f'--image-size must be at least 1 x 1, got {height} x {width}')
    return height, width


def _require_target(plan: Plan, format: str) -> None:
    out = plan.out
    if out.suffix != f'.{format}':
        raise UsageError(f'--out must end with .{format} for --format {format}, got {out}')
    if format == 'pt2' and (plan.inline or plan.images):
        raise UsageError('--inline and --int8 are for ONNX files, not for --format pt2.')
    if out.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise UsageError(f'--out cannot be written: {out.absolute()}')


def _local(checkpoint: str) -> str | None:
    """Return the file that a checkpoint's name stands for, if it is on this machine."""
    if checkpoint.startswith('mmevm://'):
        return str(fetch(checkpoint))
    return None if '://' in checkpoint else os.path.expanduser(checkpoint)


def _load(model: nn.Module, checkpoint: str | None, path: str | None) -> dict[str, str]:
    """Load the weights, say where they come from, and return that as metadata; ``path`` is the checkpoint's file."""
    if checkpoint is None:
        torch.manual_seed(0)
        logger = MMLogger.get_current_instance()
        level = logger.level
        try:
            logger.setLevel(logging.WARNING)  # it lists every parameter
            model.init_weights()
        except OSError as error:
            raise UsageError(f'The weights of init_cfg cannot be loaded ({error}); give a checkpoint.') from error
        finally:
            logger.setLevel(level)
        sources = _initial_weights(model)
        given = f'weights of init_cfg ({", ".join(sources)}), all others random' if sources else 'random weights'
        print(f'      no checkpoint: {given}', flush=True)
        return {'weights': ', '.join(sources) or 'random'}
    if has_backbone(model):
        load_checkpoint(model, checkpoint).require_whole(checkpoint)
    else:
        _load_plainly(model, checkpoint)
    digest = {'checkpoint_sha256': file_hash(path)} if path else {}
    return {'weights': os.path.basename(checkpoint), **digest}


def _require_finite(model: nn.Module, source: str) -> None:
    wrong = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if wrong:
        raise UsageError(
            f'{len(wrong)} tensors of {source} have NaN or infinite values, {wrong[0]} among them: the training run '
            'that wrote them diverged. Export an earlier checkpoint.'
        )


def _initial_weights(model: nn.Module) -> list[str]:
    configs = [getattr(module, 'init_cfg', None) for module in model.modules()]
    flat = [c for config in configs for c in (config if isinstance(config, list) else [config]) if isinstance(c, dict)]
    return list(dict.fromkeys(config['checkpoint'] for config in flat if 'checkpoint' in config))


def _load_plainly(model: nn.Module, checkpoint: str) -> None:
    """Load a checkpoint of a model without a backbone of ours."""
    content = open_checkpoint(checkpoint)
    try:
        load_state_dict(model, content.get('state_dict', content), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f'checkpoint {checkpoint} does not fit the model: {error}') from error


def wrap(cfg: Any, model: Any, backbone: bool = False, logits: bool = False) -> ExportedModel:
    """Return a model in evaluation mode with the outputs of its task.

    Args:
        cfg (Config): The model's config.
        model (nn.Module): The model.
        backbone (bool): The maps of its backbone.
        logits (bool): Raw outputs of a classifier or segmentor.

    Raises:
        UsageError: Models of its kind are not exported.
    """
    scope = cfg.get('default_scope')
    if backbone or type(model).__name__ in BACKBONES:
        exported: ExportedModel = ExportedBackbone(model.backbone if hasattr(model, 'backbone') else model)
    elif scope == 'mmdet':
        exported = exported_detector(model)
    elif scope == 'mmseg':
        exported = ExportedSegmentor(model, logits)
    elif scope == 'mmpretrain' and hasattr(model, 'head'):
        exported = ExportedClassifier(model, logits)
    else:
        exported = ExportedBackbone(model)
    if logits and 'logits' not in exported.outputs:
        raise UsageError(f'--logits is for classifiers and segmentors; {type(model).__name__} is for {exported.task}.')
    return exported


def _write(exported: ExportedModel, metadata: Mapping[str, Any], plan: Plan) -> None:
    """Export to a temporary file beside the target, compare it, and rename it."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in metadata.items()
        if value is not None
    }
    dtype = torch.uint8 if metadata['input']['dtype'] == 'uint8' else torch.float32
    try:
        with replacing(plan.out) as draft:
            (_write_program if plan.out.suffix == '.pt2' else _write_onnx)(exported, texts, dtype, draft, plan)
    except OSError as error:
        raise UsageError(write_fault(error, plan.out) or f'{plan.out} cannot be written: {error}') from error
    print(f'[4/4] {plan.out}: {size(plan.out.stat().st_size)}, outputs {", ".join(exported.outputs)}', flush=True)


def _write_onnx(
    exported: ExportedModel, metadata: Mapping[str, str], dtype: torch.dtype, draft: Path, plan: Plan
) -> None:
    model = to_onnx(exported, [*exported.outputs, *exported.checked], dtype=dtype, size=plan.size)
    model.producer_name, model.producer_version = 'mmevm', __version__
    model.metadata_props.update(metadata)
    onnx_ir.save(model, draft)
    if plan.verify:
        session = make_session(draft)
        check(exported, lambda images: _run(session, images), dtype, fixed_axes(model))
    else:
        print('[3/4] not compared with PyTorch', flush=True)
    del model.graph.outputs[len(exported.outputs) :]
    onnx_ir.save(model, draft)
    if plan.inline:
        onnx.save(onnx.inliner.inline_local_functions(onnx.load(draft)), draft)
    if plan.images:
        print(f'      calibrating 8-bit products on {len(plan.images)} images', flush=True)
        with replacing(draft) as rounded:
            share = quantize(draft, rounded, plan.images)
        print(f'      on them, the 8-bit file agrees by {share:.1%} with the one in float32', flush=True)


def _run(session: Any, images: Tensor) -> list[Tensor]:
    return [torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})]


def _write_program(
    exported: ExportedModel, metadata: Mapping[str, str], dtype: torch.dtype, draft: Path, plan: Plan
) -> None:
    program = to_program(Results(exported), dtype=dtype, size=plan.size)
    if plan.verify:
        module, n = program.module(), len(exported.outputs)
        # The maps before thresholds and suppression are no outputs of the program.
        fixed = dict(zip((2, 3), plan.size, strict=True)) if plan.size else {}
        check(exported, lambda images: [*module(images), *exported(images)[n:]], dtype, fixed)
    else:
        print('[3/4] not compared with PyTorch', flush=True)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={'mmevm.json': json.dumps(metadata, ensure_ascii=False)})
    draft.write_bytes(content.getvalue())


def check(
    exported: ExportedModel,
    run: Callable[[Tensor], list[Tensor]],
    dtype: torch.dtype,
    fixed: Mapping[int, int],
) -> None:
    """Compare a file with PyTorch and print the largest differences.

    Args:
        exported (ExportedModel): The model.
        run (Callable): Runs the file; also returns what is compared besides.
        dtype (torch.dtype): Of its images.
        fixed (Mapping[int, int]): Sizes of axes of the images that the file does not leave open.

    Raises:
        UsageError: A difference is larger than allowed.
    """
    print(f'[3/4] comparing with PyTorch at {len(SIZES)} sizes', flush=True)
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in dict.fromkeys((fixed.get(0, b), fixed.get(2, h), fixed.get(3, w)) for b, h, w in SIZES):
        shape = (batch, 3, height, width)
        images = torch.randn(shape, generator=generator)
        if dtype == torch.uint8:
            images = torch.randint(0, 256, shape, generator=generator, dtype=dtype)
        with torch.no_grad():
            differences = exported.compare(run(images), images)
        worst = max(differences, key=lambda d: d.value / d.allowed if d.allowed else d.value * torch.inf)
        print(f'      {batch} x {height} x {width}: largest difference {worst.value:.2g}, {worst.name}', flush=True)
        wrong = [d for d in differences if not d.value <= d.allowed]
        if wrong:
            found = ', '.join(f'{d.name} differs by {d.value:.3g} (allowed {d.allowed:g})' for d in wrong[:3])
            raise UsageError(f'The exported file does not agree with PyTorch and is not kept: {found}')


def make_session(path: Path) -> Any:
    """Return a session of ONNX Runtime on the CPU with PyTorch's number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tools/export.py`` and return its exit status."""
    args = parse_args(argv)
    return exit_status(lambda: export(**args))
