"""Latency of exported classifiers: ours by custom operator and by function, beside timm's, in each runtime, in one run.

Everything is exported by mmevm's own exporter and runs in float32 with one image, in ONNX Runtime, in PyTorch eager,
and in OpenVINO where it is installed. With ``--detector`` (a config), the complete detector is measured too.
"""

import argparse
import functools
import runpy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import networks
    import onnx
    import onnx.inliner
    import onnx_ir
    import onnxruntime
    import timing
    import torch
    from torch import nn

    from mmevm.deploy import onnxruntime_library
    from mmevm.deploy.export import wrap
    from mmevm.deploy.graph import to_onnx
    from mmevm.deploy.models import Results
    from mmevm.engine.config import load_config
    from mmevm.engine.tasks import build_model
except ModuleNotFoundError as error:
    runpy.run_path(str(Path(__file__).parents[1] / 'tools/_interpreter.py'))['stop'](error)

OURS = ('evm_tiny', 'evm_small', 'evm_base', 'vmamba_tiny', 'vmamba_tiny_s1l8', 'vim_tiny')
SWIN = 'swin_tiny_patch4_window7_224'
PEERS = (
    'regnety_008',
    'regnety_016',
    'efficientnet_b0',
    'mobilenetv4_conv_medium',
    'efficientvit_b1',
    'efficientvim_m2',
    SWIN,
)
COUNTERPARTS = {'evm_tiny': 'regnety_008', 'evm_small': 'regnety_016', 'evm_base': SWIN}
"""The network whose time in ONNX Runtime is what ours is measured against."""

PAUSE = 0.05
"""Seconds before each call, in which the runtimes' own threads go to sleep."""

RUNTIMES = ('ONNX Runtime', 'ONNX Runtime, function', 'OpenVINO', 'PyTorch')
COLUMNS = {
    'model': '{model}',
    'size': '{size}',
    'runtime': '{runtime}',
    'median, ms': '{median:.1f}',
    'p25–p75, ms': '{p25:.1f}–{p75:.1f}',
    'load, s': '{load:.2f}',
    '× PyTorch': '{to_pytorch:.2f}',
    '× by custom operator': '{to_operator:.2f}',
    'counterpart': '{counterpart:s}',
    '× counterpart': '{to_counterpart:.2f}',
}

Run = Callable[[], Any]


class Outputs(nn.Module):
    """A network whose outputs are a tuple, as the exporter needs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Args: images (Tensor[B, 3, H, W]). Returns: The outputs."""
        outputs = self.model(images)
        return outputs if isinstance(outputs, tuple) else (outputs,)


class Detector(Results):
    """A detector as it is exported, and, in PyTorch, as MMDetection runs it.

    Args:
        config (str): Config file.
    """

    def __init__(self, config: str) -> None:
        cfg = load_config(config, {'model.backbone.init_cfg': None})
        model = build_model(cfg)
        model.init_weights()
        super().__init__(wrap(cfg, model.eval()).eval())
        self.outputs = self.exported.outputs

    def predict(self, images: torch.Tensor) -> Any:
        """Return MMDetection's own prediction."""
        return self.exported.predictions(images)


def open_onnxruntime(path: Path, images: torch.Tensor, kernels: bool) -> Run:
    """Return a forward pass in ONNX Runtime, with mmevm's kernels or without."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if kernels:
        options.register_custom_ops_library(onnxruntime_library())
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return functools.partial(session.run, None, {'images': images.numpy()})


def open_openvino(path: Path, images: torch.Tensor) -> Run | None:
    """Return a forward pass in OpenVINO, which knows no functions, or None if it is not installed."""
    try:
        import openvino
    except ModuleNotFoundError:
        return None
    standard = onnx.inliner.inline_local_functions(onnx.load(path)).SerializeToString()
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
    model = openvino.compile_model(openvino.Core().read_model(standard), 'CPU', settings)
    return functools.partial(model, images.numpy())


def open_all(name: str, model: nn.Module, size: int, folder: Path) -> list[tuple[timing.Row, Run]]:
    """Export a network, and load it into every runtime.

    Returns:
        list[tuple[Row, Callable]]: Model, size, runtime and seconds of the first load, and a forward pass.
    """
    path = folder / 'model.onnx'
    images = torch.randn(1, 3, size, size)
    outputs = getattr(model, 'outputs', ['scores'])
    whole = model if hasattr(model, 'outputs') else Outputs(model)
    strict = getattr(getattr(model, 'patch_embed', None), 'strict_img_size', False)  # timm's Swin: one size only
    onnx_ir.save(to_onnx(whole, outputs, size=(size, size) if strict else None), path)
    scans = 'VisualScan' in {node.op_type for node in onnx.load(path).graph.node}
    openers: dict[str, Callable[[], Run | None]] = {
        'ONNX Runtime': functools.partial(open_onnxruntime, path, images, scans),
        'ONNX Runtime, function': functools.partial(open_onnxruntime, path, images, False),
        'OpenVINO': functools.partial(open_openvino, path, images),
        'PyTorch': lambda: functools.partial(getattr(model, 'predict', model), images),
    }
    found = []
    for runtime, opener in openers.items():
        if runtime == 'ONNX Runtime, function' and not scans:
            continue
        start = time.perf_counter()
        run = opener()
        if run is not None:
            row = {'model': name, 'size': size, 'runtime': runtime}
            if runtime != 'PyTorch':
                row['load'] = time.perf_counter() - start
            found.append((row, run))
    return found


def add_ratios(rows: list[timing.Row]) -> None:
    """Divide each median by that of PyTorch, of the custom operator and, in ONNX Runtime, of the counterpart."""
    medians = {(row['model'], row['runtime']): row['median'] for row in rows}
    for row in rows:
        if row['runtime'] != 'PyTorch':
            row['to_pytorch'] = row['median'] / medians[row['model'], 'PyTorch']
        if row['runtime'] == 'ONNX Runtime, function':
            row['to_operator'] = row['median'] / medians[row['model'], 'ONNX Runtime']
        counterpart = COUNTERPARTS.get(row['model'])
        if row['runtime'] == 'ONNX Runtime' and (counterpart, 'ONNX Runtime') in medians:
            row['counterpart'] = counterpart
            row['to_counterpart'] = row['median'] / medians[counterpart, 'ONNX Runtime']


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--models', nargs='*', default=[*OURS, *PEERS], help='ours, such as evm_tiny, and names of timm'
    )
    parser.add_argument('--resolution', type=int, default=224, help='image size (default: %(default)s)')
    parser.add_argument('--detector', nargs='*', default=[], metavar='CONFIG', help='configs of detectors')
    parser.add_argument('--detector-size', type=int, default=512, help='their image size (default: %(default)s)')
    timing.add_arguments(parser, repeats=30, warmup=3)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write deploy.md and deploy.json."""
    args = parse_args()
    timing.set_threads(args.threads)
    found = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad():
        for name in args.models:
            found += open_all(name, networks.build(name, args.resolution), args.resolution, Path(folder))
        for config in args.detector:
            found += open_all(Path(config).stem, Detector(config), args.detector_size, Path(folder))
        times = timing.interleaved(
            {str(i): run for i, (_, run) in enumerate(found)}, args.repeats, args.warmup, pause=PAUSE
        )
    rows = [row for row, _ in found]
    for i, row in enumerate(rows):
        row.update(timing.summarise(times[str(i)]), times=times[str(i)])
    add_ratios(rows)
    versions = {name: timing.version(name) for name in ('onnxruntime', 'openvino')}
    title = f'Exported models, batch 1, {torch.get_num_threads()} threads'
    note = (
        f'float32, initial weights, with which detectors find no objects; {args.repeats} rounds, each with one timed '
        'call of every line, in shuffled order. '
        "ONNX Runtime scans with mmevm's custom operator, or, where it says so, with the function in the file. "
        f'onnxruntime {versions["onnxruntime"]}, openvino {versions["openvino"]}.'
    )
    timing.save(args.out, 'deploy', title, rows, COLUMNS, [note], versions=versions)


if __name__ == '__main__':
    main()
