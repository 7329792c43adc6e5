"""The scan of a map as an ONNX function: one node, and what it means in standard operators.

A runtime that has no kernel for ``mmevm::VisualScan`` inlines the function. One that has takes the node as it is.
"""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto
from onnx.defs import OpSchema
from onnxscript import FLOAT, graph, opset18, script
from onnxscript.values import Opset

DOMAIN = 'mmevm'
OPSET = 18
"""Of the standard operators; ONNX Runtime has it since 1.14."""
_OPSET = Opset(DOMAIN, 1)
op: Any = opset18
_ANY = FLOAT[...]  # type: ignore[misc, type-arg]


# The body is not Python: onnxscript compiles it. Integers are tensors of one element, in the names of mmevm.ops.
@script(_OPSET, default_opset=op)
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


INPUTS = ('x', 'x_proj', 'dt_weight', 'dt_bias', 'A', 'Ds')

# Exporters inline functions. A node that has a schema they leave alone; the function is added to the exported model.
_FLOAT = 'tensor(float)'
onnx.defs.register_schema(
    OpSchema(
        'VisualScan',
        DOMAIN,
        1,
        inputs=[OpSchema.FormalParameter(name, _FLOAT) for name in INPUTS],
        outputs=[OpSchema.FormalParameter('y', _FLOAT)],
        attributes=[
            OpSchema.Attribute('step', OpSchema.AttrType.INT, required=True),
            OpSchema.Attribute('routes', OpSchema.AttrType.INTS, required=True),
        ],
    )
)


def visual_scan_node(
    x: Any, x_proj: Any, dt_weight: Any, dt_bias: Any, A: Any, Ds: Any, step: int, routes: Sequence[int]
) -> Any:
    """Translate :func:`.layers.scan_map` for ``torch.onnx.export``."""
    return _OPSET.VisualScan(x, x_proj, dt_weight, dt_bias, A, Ds, step=step, routes=routes)
