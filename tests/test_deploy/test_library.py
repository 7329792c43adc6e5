"""The library for ONNX Runtime against the operator, as the node's function is tested."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mmevm.deploy import onnxruntime_library
from tests.conftest import skip_without_extension
from tests.test_deploy.test_functions import CASES, INPUTS, check_against_the_operator, make_session


def with_kernels(threads: int = 1) -> onnxruntime.SessionOptions:
    """Options of a session that scans with mmevm's kernels."""
    try:
        library = onnxruntime_library()
    except FileNotFoundError as error:
        skip_without_extension(str(error))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(library)
    return options


def feed(**changes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Inputs for the four routes of SS2D, some of them of another shape."""
    shapes = dict(zip(INPUTS, [(2, 5, 4, 6), (4, 7, 6), (4, 6, 1), (4, 6), (4, 6, 3), (4, 6)], strict=True)) | changes
    values = np.random.default_rng(0)
    return {name: -values.random(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize('threads', [1, 3])
@pytest.mark.parametrize('name', CASES)
def test_equals_the_operator(name: str, threads: int) -> None:
    check_against_the_operator(make_session(*CASES[name], with_kernels(threads)), *CASES[name])


def test_the_node_is_not_inlined(tmp_path: Path) -> None:
    options = with_kernels()
    options.optimized_model_filepath = str(tmp_path / 'optimized.onnx')
    make_session(*CASES['SS2D'], options)
    assert b'VisualScan' in (tmp_path / 'optimized.onnx').read_bytes()


def test_sessions_share_a_process() -> None:
    first, second = (make_session(*CASES[name], with_kernels(2)) for name in ('SS2D', 'ES2D'))
    before = first.run(None, feed())[0]
    second.run(None, feed())
    np.testing.assert_array_equal(first.run(None, feed())[0], before)


@pytest.mark.parametrize(
    ('name', 'shape', 'message'),
    [
        ('x_proj', (4, 7, 5), '`x_proj` must have shape [P, R + 2N, D] = [4, 7, 6], got [4, 7, 5]'),
        ('dt_bias', (3, 6), '`dt_bias` must have shape'),
        ('A', (4, 6, 2), '`x_dbl` must have shape'),
        ('x_proj', (3, 7, 6), 'projection must be below'),
    ],
)
def test_shapes_that_do_not_fit(name: str, shape: tuple[int, ...], message: str) -> None:
    session = make_session(*CASES['SS2D'], with_kernels())
    with pytest.raises(Exception, match='mmevm::VisualScan') as error:
        session.run(None, feed(**{name: shape}))
    assert message in str(error.value)


def test_a_wrong_rank_is_named() -> None:
    nodes = make_session(*CASES['SS2D'], with_kernels())
    with pytest.raises(Exception, match='Invalid rank for input: x Got: 3 Expected: 4'):
        nodes.run(None, feed() | {'x': np.zeros((5, 4, 6), np.float32)})


def test_nan_stays_where_it_belongs() -> None:
    inputs = feed()
    inputs['x'][0, 2, 1, 3] = np.nan  # reaches every cell of the first image, by one route or another
    for options in (None, with_kernels()):
        (y,) = make_session(*CASES['SS2D'], options).run(None, inputs)
        assert np.isnan(y[0]).any() and np.isfinite(y[1]).all()
