"""The scan of a map as an ONNX function: one node, and what it means in standard operators.

A runtime that has no kernel for ``mmevm::VisualScan`` inlines the function. One that has takes the node as it is.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto
from onnx.defs import OpSchema
from onnxscript import FLOAT, graph, opset18, script
from onnxscript.values import Opset

from mmevm.ops.routes import flatten, unflatten

DOMAIN = 'mmevm'
OPSET = 18
"""Of the standard operators; ONNX Runtime has it since 1.14."""
MMEVM = Opset(DOMAIN, 1)
op: Any = opset18
_ANY = FLOAT[...]  # type: ignore[misc, type-arg]


# The body is not Python: onnxscript compiles it. Integers are tensors of one element, in the names of mmevm.ops.
@script(MMEVM, default_opset=op)
def VisualScan(
    x: FLOAT,
    x_proj: FLOAT,
    dt_weight: FLOAT,
    dt_bias: FLOAT,
    A: FLOAT,
    Ds: FLOAT,
    step: int,
    routes: Sequence[int],
) -> FLOAT:
    """Sum of the selective scans along routes over a map, with the projections of its cells.

    ``y = mmevm.ops.visual_scan(x, x_dbl, dt_weight, A, Ds, routes=routes, step=step, dt_bias=dt_bias)`` where
    ``x_dbl[b, h, w, p] = x_proj[p] @ x[b, h, w]``. All data are float32: x [B, H, W, D], x_proj [P, R + 2N, D],
    dt_weight [K, D, R], dt_bias [K, D], A [K, D, N], Ds [K, D]. ``routes`` has six integers per route (row, col,
    column_major, reverse, parameters, projection), sorted by row and column; the same number of routes, at least one,
    starts in each of the first ``step`` x ``step`` cells.
    """
    one = op.Constant(value_ints=[1])
    last = op.Constant(value_ints=[-1])
    p = op.Reshape(op.Constant(value_int=step), one)
    table = op.Reshape(op.Constant(value_ints=routes), op.Constant(value_ints=[-1, 6]))
    G = op.Shape(table, start=0, end=1)
    row, col, column_major, reverse, parameters, projection = op.Split(table, axis=1, num_outputs=6)  # each [G, 1]
    column_major = op.Cast(column_major, to=TensorProto.BOOL)
    reverse = op.Cast(reverse, to=TensorProto.BOOL)
    parameters = op.Reshape(parameters, last)
    projection = op.Reshape(projection, last)
    B, H, W, D = op.Split(op.Shape(x), num_outputs=4)
    rows = (H + p - one) / p
    cols = (W + p - one) / p
    L = rows * cols

    # Tokens [G, L * B, D] in the routes' order; those past the map's edge read a row of zeros behind its last cell.
    zero = op.Constant(value_int=0)
    next = op.Constant(value_int=1)
    t = op.Unsqueeze(op.Range(zero, op.Squeeze(L), next), zero)
    t = op.Where(reverse, L - one - t, t)
    h = row + p * op.Where(column_major, op.Mod(t, rows), t / cols)
    w = col + p * op.Where(column_major, t / rows, op.Mod(t, cols))
    cell = op.Where(op.And(h < H, w < W), h * W + w, H * W)
    cells = op.Transpose(op.Reshape(x, op.Concat(B, H * W, D, axis=0)), perm=[1, 0, 2])
    # Not by Pad, whose constant ONNX Runtime 1.20 cannot read in a function.
    nothing = op.Expand(op.Constant(value_float=0.0), op.Concat(one, B, D, axis=0))
    tokens = op.Gather(op.Concat(cells, nothing, axis=0), cell)
    u = op.Reshape(tokens, op.Concat(G, last, D, axis=0))

    R = op.Shape(dt_weight, start=2, end=3)
    N = op.Shape(A, start=2, end=3)
    x_dbl = op.MatMul(u, op.Transpose(op.Gather(x_proj, projection), perm=[0, 2, 1]))
    rank, Bs, Cs = op.Split(x_dbl, op.Concat(R, N, N, axis=0), axis=2)
    raw = op.MatMul(rank, op.Transpose(op.Gather(dt_weight, parameters), perm=[0, 2, 1]))
    raw = raw + op.Unsqueeze(op.Gather(dt_bias, parameters), one)
    # softplus(raw) = max(raw, 0) + log(1 + e) without loss for small e; runtimes' Softplus loses up to all of it.
    unit = op.Constant(value_float=1.0)
    e = op.Exp(-op.Abs(raw))
    sum = unit + e
    delta = op.Relu(raw) + op.Where(sum == unit, e, op.Log(sum) * e / (sum - unit))

    lead = op.Concat(G, L, B, axis=0)
    across = op.Concat(lead, one, last, axis=0)  # [G, L, B, 1, D] or [G, L, B, 1, N]
    down = op.Concat(lead, last, one, axis=0)  # [G, L, B, N, 1]
    A_T = op.Unsqueeze(op.Transpose(op.Gather(A, parameters), perm=[0, 2, 1]), one)  # [G, 1, N, D]
    start = op.Expand(op.Constant(value_float=0.0), op.Concat(G, B, N, D, axis=0))

    # Token by token. Chunks of tokens in parallel cost a second pass, and were no faster. A goes round with the state:
    # OpenVINO takes nothing into the body of a Scan from outside of it.
    @graph()
    def recur(state: _ANY, A_t: _ANY, delta_t: _ANY, input_t: _ANY, B_t: _ANY, C_t: _ANY):
        next_state = op.Exp(delta_t * A_t) * state + B_t * input_t
        y_t = op.MatMul(C_t, next_state)
        return next_state, op.Identity(A_t), y_t

    _, _, ys = op.Scan(
        start,
        A_T,
        op.Reshape(delta, across),
        op.Reshape(delta * u, across),
        op.Reshape(Bs, down),
        op.Reshape(Cs, across),
        body=recur,
        num_scan_inputs=4,
        scan_input_axes=[1, 1, 1, 1],
        scan_output_axes=[1],
    )

    # Each cell adds up the tokens of the routes that pass it: [H * W, B, D].
    i = op.Range(zero, op.Squeeze(H * W), next)
    h = i / W
    w = op.Mod(i, W)
    phase = op.Mod(h, p) * p + op.Mod(w, p)
    per_phase = G / (p * p)
    g = phase * per_phase + op.Unsqueeze(op.Range(zero, op.Squeeze(per_phase), next), one)  # [routes of a cell, H * W]
    h = h / p
    w = w / p
    t = op.Where(op.Gather(op.Reshape(column_major, last), g), w * rows + h, h * cols + w)
    t = op.Where(op.Gather(op.Reshape(reverse, last), g), L - one - t, t)
    found = op.Gather(op.Reshape(ys, op.Concat(last, B, D, axis=0)), g * L + t)
    skips = op.Reshape(op.Gather(Ds, parameters), op.Concat(p * p, per_phase, D, axis=0))
    skip = op.Unsqueeze(op.Gather(op.ReduceSum(skips, one, keepdims=0), phase), one)
    y = op.ReduceSum(found, op.Constant(value_ints=[0]), keepdims=0) + skip * cells
    return op.Reshape(op.Transpose(y, perm=[1, 0, 2]), op.Shape(x))


@script(MMEVM, default_opset=op)
def SelectiveScan(u: FLOAT, delta: FLOAT, A: FLOAT, Bs: FLOAT, Cs: FLOAT, Ds: FLOAT, delta_bias: FLOAT, softplus: int):
    """The one-dimensional scan: ``y, last_state = mmevm.ops.selective_scan(…)`` for groups of channels, in float32.

    u and delta [B, D, L], A [D, N], Bs and Cs [B, G, N, L], Ds and delta_bias [D]; y [B, D, L], last_state [B, D, N].
    """
    one = op.Constant(value_ints=[1])
    last = op.Constant(value_ints=[-1])
    raw = delta + op.Unsqueeze(delta_bias, one)
    unit = op.Constant(value_float=1.0)
    e = op.Exp(-op.Abs(raw))
    sum = unit + e
    positive = op.Relu(raw) + op.Where(sum == unit, e, op.Log(sum) * e / (sum - unit))
    steps = op.Where(op.Cast(op.Constant(value_int=softplus), to=TensorProto.BOOL), positive, raw)

    B, D, L = op.Split(op.Shape(u), num_outputs=3)
    G, N = op.Split(op.Shape(Bs, start=1, end=3), num_outputs=2)
    grouped = op.Concat(B, G, last, L, axis=0)
    three = op.Constant(value_ints=[3])
    across = op.Unsqueeze(op.Transpose(op.Reshape(steps, grouped), perm=[3, 0, 1, 2]), three)  # [L, B, G, 1, D / G]
    inputs = op.Unsqueeze(op.Transpose(op.Reshape(steps * u, grouped), perm=[3, 0, 1, 2]), three)
    Bs_t = op.Unsqueeze(op.Transpose(Bs, perm=[3, 0, 1, 2]), op.Constant(value_ints=[4]))  # [L, B, G, N, 1]
    Cs_t = op.Unsqueeze(op.Transpose(Cs, perm=[3, 0, 1, 2]), three)  # [L, B, G, 1, N]
    A_T = op.Transpose(op.Reshape(A, op.Concat(G, last, N, axis=0)), perm=[0, 2, 1])
    A_T = op.Unsqueeze(A_T, op.Constant(value_ints=[0]))  # [1, G, N, D / G]
    start = op.Expand(op.Constant(value_float=0.0), op.Concat(B, G, N, D / G, axis=0))

    @graph()
    def recur(state: _ANY, A_t: _ANY, delta_t: _ANY, input_t: _ANY, B_t: _ANY, C_t: _ANY):
        next_state = op.Exp(delta_t * A_t) * state + B_t * input_t
        y_t = op.MatMul(C_t, next_state)
        return next_state, op.Identity(A_t), y_t

    end, _, ys = op.Scan(start, A_T, across, inputs, Bs_t, Cs_t, body=recur, num_scan_inputs=4)
    ys = op.Transpose(op.Reshape(ys, op.Concat(L, B, D, axis=0)), perm=[1, 2, 0])
    y = ys + op.Unsqueeze(Ds, one) * u
    last_state = op.Reshape(op.Transpose(end, perm=[0, 1, 3, 2]), op.Concat(B, D, N, axis=0))
    return y, last_state


INPUTS = ('x', 'x_proj', 'dt_weight', 'dt_bias', 'A', 'Ds')

FUNCTIONS: dict[str, Any] = {'VisualScan': VisualScan, 'SelectiveScan': SelectiveScan}
"""What the nodes of our domain mean, by their name."""


def register(name: str, inputs: Sequence[str], outputs: Sequence[str], attributes: dict[str, Any]) -> None:
    """Give a node a schema: such a node exporters leave alone, where they inline functions."""
    tensor = 'tensor(float)'
    onnx.defs.register_schema(
        OpSchema(
            name,
            DOMAIN,
            1,
            inputs=[OpSchema.FormalParameter(value, tensor) for value in inputs],
            outputs=[OpSchema.FormalParameter(value, tensor) for value in outputs],
            attributes=[OpSchema.Attribute(key, kind, required=True) for key, kind in attributes.items()],
        )
    )


register('VisualScan', INPUTS, ['y'], {'step': OpSchema.AttrType.INT, 'routes': OpSchema.AttrType.INTS})
register(
    'SelectiveScan',
    ('u', 'delta', 'A', 'Bs', 'Cs', 'Ds', 'delta_bias'),
    ['y', 'last_state'],
    {'softplus': OpSchema.AttrType.INT},
)


def visual_scan_node(
    x: Any, x_proj: Any, dt_weight: Any, dt_bias: Any, A: Any, Ds: Any, step: int, routes: Sequence[int]
) -> Any:
    """Translate :func:`.operators.scan_map` for ``torch.onnx.export``."""
    return MMEVM.VisualScan(x, x_proj, dt_weight, dt_bias, A, Ds, step=step, routes=routes)


def projected_scan_nodes(
    x: Any,
    x_dbl: Any,
    dt_weight: Any,
    dt_bias: Any,
    A: Any,
    Ds: Any,
    step: int,
    routes: Sequence[int],
    save_states: bool,
) -> Any:
    """Translate a scan of a map that is projected already: its projections go through the node as further channels."""
    require_float(x, x_dbl)
    paths = sorted(unflatten(list(routes)))
    starts = Counter((route.row, route.col) for route in paths)
    if set(starts) != set(product(range(step), repeat=2)) or len(set(starts.values())) > 1:
        raise NotImplementedError('the same number of routes must start in each phase of a map')
    (P, M), D, K = x_dbl.shape[3:], x.shape[3], dt_weight.shape[0]
    more = P * M
    select = np.zeros((P, M, D + more), np.float32)
    select.reshape(more, -1)[:, D:] = np.eye(more)
    flat = op.Reshape(x_dbl, op.Constant(value_ints=[0, 0, 0, more]))
    wider = op.Constant(value_ints=[0, 0, 0, 0, more, 0])
    along = op.Constant(value_ints=[0, 0, 0, more])
    y = MMEVM.VisualScan(
        op.Concat(x, flat, axis=-1),
        op.Constant(value=onnx.numpy_helper.from_array(select)),
        op.Pad(dt_weight, wider),
        op.Pad(_zeros(K, D) if dt_bias is None else dt_bias, along),
        op.Pad(A, wider, op.Constant(value_float=-1.0)),
        op.Pad(_zeros(K, D) if Ds is None else Ds, along),
        step=step,
        routes=flatten(paths),
    )
    ends = (op.Constant(value_ints=[value]) for value in (0, D, 3))
    return op.Slice(y, *ends), _zeros(0)


def selective_scan_nodes(
    u: Any,
    delta: Any,
    A: Any,
    Bs: Any,
    Cs: Any,
    Ds: Any,
    delta_bias: Any,
    delta_softplus: bool,
    save_states: bool,
) -> Any:
    """Translate the one-dimensional scan."""
    require_float(u, delta, Bs, Cs)
    D = A.shape[0]
    Ds, delta_bias = (_zeros(D) if value is None else value for value in (Ds, delta_bias))
    y, state = MMEVM.SelectiveScan(u, delta, A, Bs, Cs, Ds, delta_bias, softplus=int(delta_softplus))
    return y, state, _zeros(0)


def _zeros(*sizes: int) -> Any:
    return op.Constant(value=onnx.numpy_helper.from_array(np.zeros(sizes, np.float32)))


def require_float(*tensors: Any) -> None:
    if any(tensor.dtype != onnx_ir.DataType.FLOAT for tensor in tensors):
        raise NotImplementedError('scans are exported in float32 only; call .float() on the model')
