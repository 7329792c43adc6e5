"""`tools/analysis/complexity.py`: every rule against a count by hand, the sums against MMEngine's and the papers'."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.analysis.complexity_analysis import FlopAnalyzer
from mmengine.config import Config
from torch import Tensor, nn

from mmevm.backbones import EfficientVMamba
from mmevm.layers import SS2D, BidirectionalMamba
from mmevm.ops import Route, extension, selective_scan, visual_scan
from tools.analysis.complexity import Complexity, count, main, measure

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.openmmlab, pytest.mark.usefixtures('extension')]


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> object:
        return self.function(*inputs)


@pytest.mark.parametrize(
    'module, shape, flops, activations',
    [
        (nn.Linear(5, 7), (2, 3, 5), 2 * 3 * 5 * 7, 2 * 3 * 7),
        (nn.Conv2d(6, 4, 3, padding=1, groups=2), (2, 6, 8, 9), 2 * 4 * 8 * 9 * 3 * 9, 2 * 4 * 8 * 9),
        (nn.ConvTranspose2d(6, 4, 2, stride=2), (1, 6, 8, 8), 6 * 4 * 4 * 64, 4 * 256),
        (nn.LayerNorm(6), (4, 6), 5 * 24, 0),
        (nn.GroupNorm(2, 6), (4, 6, 2), 5 * 48, 0),
        (nn.BatchNorm2d(6), (4, 6, 2, 2), 2 * 96, 0),
        (nn.Upsample(scale_factor=2, mode='bilinear'), (1, 3, 4, 4), 4 * 3 * 64, 0),
        (nn.AdaptiveAvgPool2d(2), (1, 3, 8, 8), 3 * 64, 0),
        (nn.GELU(), (4, 6), 0, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else '',
)
def test_count_follows_fvcores_rules(module: nn.Module, shape: tuple, flops: int, activations: int) -> None:
    params = sum(p.numel() for p in module.parameters())
    assert count(module, shape) == Complexity(params, flops, activations)


def test_count_of_a_selective_scan() -> None:
    B, D, L, N = 2, 6, 10, 4
    shapes = [(B, D, L), (B, D, L), (D, N), (B, 1, N, L), (B, 1, N, L), (D,)]
    tokens = B * D * L
    assert count(Call(selective_scan), *shapes) == Complexity(0, tokens * (9 * N + 1), tokens)
    assert count(Call(selective_scan), *shapes[:-1]).flops == tokens * 9 * N


def test_count_of_a_visual_scan_takes_the_padded_tokens_of_every_route() -> None:
    B, H, W, D, N, R, K = 2, 5, 7, 6, 4, 3, 2
    routes = [Route(0, 0, False, False, 0, 0), Route(1, 0, True, False, 1, 0), Route(0, 1, False, True, 0, 0)]
    scan = Call(lambda *inputs: visual_scan(*inputs, routes=routes, step=2))
    shapes = [(B, H, W, D), (B, H, W, 1, R + 2 * N), (K, D, R), (K, D, N), (K, D)]
    tokens = B * 3 * (3 * 4) * D
    assert count(scan, *shapes) == Complexity(0, tokens * (9 * N + 1 + R), B * H * W * D)


@pytest.mark.parametrize('gate', [True, False])
def test_count_of_ss2d_has_four_scans_of_the_whole_map(gate: bool) -> None:
    B, H, W, C, D, N, R = 2, 5, 7, 32, 64, 4, 2
    tokens = B * H * W
    linear = C * D * (3 if gate else 2) + 4 * D * (R + 2 * N)  # in, gate, out; the routes' projections
    scans = 4 * (D * R + 9 * D * N + D)
    got = count(SS2D(C, d_state=N, expand=2.0, gate=gate), (B, H, W, C))
    assert got.flops == tokens * (linear + 9 * D + 5 * D + scans)  # a 3 x 3 convolution and a norm besides


def test_count_of_vims_mixer_has_a_scan_in_each_direction() -> None:
    B, L, C, D, N, R, taps = 2, 11, 32, 64, 4, 2, 3
    linear = 3 * C * D + 2 * D * (R + 2 * N)
    scans = 2 * (D * R + 9 * D * N + D)
    # The causal convolutions are computed for as many tokens more as they look back, which are cut off.
    convolutions = 2 * D * taps * B * (L + taps - 1)
    got = count(BidirectionalMamba(C, d_state=N, d_conv=taps), (B, L, C))
    assert got.flops == B * L * (linear + scans) + convolutions


def test_count_equals_mmengines() -> None:
    model = EfficientVMamba('tiny').eval()
    analyzer = FlopAnalyzer(model, (torch.zeros(1, 3, 64, 96),))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    # Two blocks at 16 x 24 and two at 8 x 12; widths 96 and 192, ranks 3 and 6, 16 states.
    scans = 2 * 16 * 24 * 96 * (9 * 16 + 1 + 3) + 2 * 8 * 12 * 192 * (9 * 16 + 1 + 6)
    assert analyzer.by_operator()['visual_scan'] == scans
    assert count(model, (1, 3, 64, 96)).flops == analyzer.total()


def test_count_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count(model, (2, 3, 8, 8))
    assert model.training and model[1].training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_count_refuses_to_count_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, 'DEVICES', frozenset())
    monkeypatch.setattr(extension, 'LOAD_ERROR', 'it was not built')
    with pytest.raises(RuntimeError, match='needs the compiled extension.*it was not built'):
        count(nn.Linear(2, 2), (1, 2))


def test_measure_gives_the_papers_figures_of_other_peoples_models() -> None:
    import mmdet
    import mmseg

    detector = 'mmdet/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    segmentor = 'mmseg/upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
    # Tables 7 and 4: 44 M and 260 G, 67 M and 953 G.
    for path, params, flops in ((detector, 44, 260), (segmentor, 67, 953)):
        library, _, name = path.partition('/')
        folder = Path({'mmdet': mmdet, 'mmseg': mmseg}[library].__file__).parent / '.mim/configs'
        cost = measure(Config.fromfile(folder / name))
        assert (round(cost.params / 1e6), round(cost.flops / 1e9)) == (params, flops)


def test_measure_names_the_scopes_it_knows() -> None:
    with pytest.raises(ValueError, match="must be one of mmdet, mmseg, mmpretrain, got 'mmpose'"):
        measure(Config(dict(default_scope='mmpose', model=dict(type='X'))))


def test_command_prints_a_row_for_each_config(capsys: pytest.CaptureFixture) -> None:
    assert main([str(ROOT / 'configs' / name) for name in ('retinanet_evm_t.py', 'classifier_evm_s.py')]) == 0
    rows = [re.split(r'\s{2,}', line.strip()) for line in capsys.readouterr().out.splitlines() if '_evm_' in line]
    assert rows == [
        ['retinanet_evm_t', '800 x 1280', '15.991', '167.524', '218.0'],
        ['classifier_evm_s', '224 x 224', '11.274', '1.338', '9.6'],
    ]


def test_command_takes_another_size(capsys: pytest.CaptureFixture) -> None:
    assert main([str(ROOT / 'configs/classifier_evm_t.py'), '--size', '64', '96']) == 0
    assert re.search(r'classifier_evm_t +64 x 96 +6\.494 ', capsys.readouterr().out)


def test_command_names_a_missing_config(capsys: pytest.CaptureFixture) -> None:
    assert main(['no/such.py']) == 2
    assert re.search(r'Config file not found: /.*/no/such\.py', capsys.readouterr().err)


@pytest.mark.parametrize('arguments', [[], ['--table', 'x.md', '--size', '64', '64']], ids=['nothing', 'both'])
def test_command_refuses_contradictory_arguments(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match='2'):
        main(arguments)
