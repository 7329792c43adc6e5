"""The scan forward, and how states are carried from segment to segment."""

import triton
import triton.language as tl

from mmevm.ops.triton.tile import (
    UNSPECIALISED,
    channel_tile,
    load_rates,
    load_raw_delta,
    program_indices,
    route_field,
    route_indices,
    row,
    scan_states,
    time_steps,
    token_cells,
    token_tile,
)


@triton.jit(do_not_specialize=UNSPECIALISED)
def scan_fwd_kernel(
    p_x,
    p_delta,
    p_B,
    p_C,
    p_weight,
    p_bias,
    p_A,
    p_D,
    p_start,
    p_states,
    p_y,
    p_ends,
    p_dsum,
    length,
    H,
    W,
    step,
    n_routes,
    channels,
    N,
    R,
    n_segments,
    segment,
    s_xb,
    s_xr,
    s_xt,
    s_xd,
    s_bb,
    s_br,
    s_bt,
    s_bn,
    s_y,
    ROUTES: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr,
    BL: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    """Walks over one segment of one route of one image, for BD channels, in tiles of BL tokens.

    Without ``p_y`` it only finds the state at the segment's end, from zero, and the sum of the time steps. Scans of a
    sequence are those of ``n_routes`` groups. Optional pointers are None.

    Args:
        p_x: [B, n_routes, L, channels] by strides, or the map [B, H * W, channels].
        p_delta, p_B, p_C: Like ``p_x`` and [B, n_routes, L, N]; or the map's projections, R, N and N values a cell.
        p_weight, p_bias, p_A, p_D: [sets, channels, R], [sets, channels], [sets, channels, N], [sets, channels].
        p_start: State before each segment, [B, n_routes, n_segments, channels, N].
        p_states: Written, the state before each chunk, [B, n_routes, chunks, N, channels].
        p_y: Written, like ``p_x``, in layers of ``s_y`` entries.
        p_ends, p_dsum: Written: [B, n_routes, n_segments, channels, N] and [B, n_routes, n_segments, channels];
            beside ``p_y``, ``p_ends`` is the last state [B, n_routes, channels, N].
        ROUTES: See ``route_table``, or None for a sequence.
    """
    ACC: tl.constexpr = p_A.dtype.element_ty
    i_d, i_s, i_r, i_b = program_indices(tl.cdiv(channels, BD), n_segments, n_routes)
    i_q, i_p = route_indices(ROUTES, i_r)
    i_scan = i_b * n_routes + i_r
    o_l = tl.arange(0, BL)
    o_n, o_d, m_n, m_d, o_nd, m_nd = channel_tile(i_d, channels, N, BN, BD)

    o_sequence = i_b * s_xb + i_r * s_xr
    o_projection = i_b * s_bb + i_p * s_br
    if p_weight is not None:
        p_delta += o_projection
        p_weight += i_q * channels * R
    if ROUTES is not None and p_y is not None:
        p_y += route_field(ROUTES, i_r, 6) * s_y
    if p_bias is not None:
        p_bias += i_q * channels
    b_A = load_rates(p_A, i_q, channels, N, o_nd, m_nd)
    b_h = tl.zeros([BN, BD], ACC)
    if p_start is not None:
        b_h = tl.load(p_start + (i_scan * n_segments + i_s) * channels * N + o_nd, mask=m_nd, other=0.0)
    b_dsum = tl.zeros([BD], ACC)

    for i_t in range(i_s * segment, min(length, (i_s + 1) * segment), BL):
        o_t = i_t + o_l
        o_c, m_c = token_cells(ROUTES, i_r, o_t, length, H, W, step)
        o_x, m_x, o_bn, m_b, o_b = token_tile(
            o_c, m_c, o_sequence, o_projection, o_d, m_d, o_n, m_n, s_xt, s_xd, s_bt, s_bn
        )
        b_x = tl.load(p_x + o_x, mask=m_x, other=0.0).to(ACC)
        b_B = tl.load(p_B + o_bn, mask=m_b, other=0.0).to(ACC)
        b_raw = load_raw_delta(p_delta, p_weight, p_bias, o_x, o_b, o_d, m_c, m_d, R, ACC)
        b_delta = time_steps(b_raw, o_t < length, m_d, SOFTPLUS)
        if p_states is not None:
            if i_t % CHUNK == 0:
                o_state = (i_scan * tl.cdiv(length, CHUNK) + i_t // CHUNK) * N + o_n
                tl.store(p_states + o_state[:, None] * channels + o_d[None, :], b_h, mask=m_nd)

        b_a = tl.exp2(b_delta[:, None, :] * b_A[None, :, :])
        b_hs = scan_states(b_a, (b_delta * b_x)[:, None, :] * b_B[:, :, None], b_h, o_l)
        b_h = row(b_hs, o_l, BL - 1)
        if p_y is None:
            b_dsum += tl.sum(b_delta, 0)
        else:
            b_C = tl.load(p_C + o_bn, mask=m_b, other=0.0).to(ACC)
            b_y = tl.sum(b_hs * b_C[:, :, None], 1)
            if p_D is not None:
                b_y += b_x * tl.load(p_D + i_q * channels + o_d, mask=m_d, other=0.0)[None, :]
            tl.store(p_y + o_x, b_y, mask=m_x)

    if p_y is None:
        i_segment = i_scan * n_segments + i_s
        tl.store(p_ends + i_segment * channels * N + o_nd, b_h, mask=m_nd)
        tl.store(p_dsum + i_segment * channels + o_d, b_dsum, mask=m_d)
    elif p_ends is not None:
        if i_s == n_segments - 1:
            tl.store(p_ends + i_scan * channels * N + o_nd, b_h, mask=m_nd)


@triton.jit(do_not_specialize=('n_segments',))
def carry_kernel(
    p_ends,
    p_dsum,
    p_A,
    p_first,
    p_start,
    n_routes,
    channels,
    N,
    n_segments,
    ROUTES: tl.constexpr,
    REVERSE: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    """Carries states over a route's segments, or adjoints over them from the last to the first.

    Args:
        p_ends, p_dsum: What ``scan_fwd_kernel`` or ``adjoint_kernel`` found for each segment.
        p_A: [sets, channels, N].
        p_first: What enters the first segment on the way, [B, n_routes, channels, N], or None for zero.
        p_start: Written, what enters each segment, [B, n_routes, n_segments, channels, N].
    """
    i_d, _, i_r, i_b = program_indices(tl.cdiv(channels, BD), 1, n_routes)
    i_q, _ = route_indices(ROUTES, i_r)
    i_scan = i_b * n_routes + i_r
    _, o_d, _, m_d, o_nd, m_nd = channel_tile(i_d, channels, N, BN, BD)
    b_A = load_rates(p_A, i_q, channels, N, o_nd, m_nd)
    b_h = tl.zeros([BN, BD], p_A.dtype.element_ty)
    if p_first is not None:
        b_h = tl.load(p_first + i_scan * channels * N + o_nd, mask=m_nd, other=0.0)
    for i in range(n_segments):
        i_segment = i_scan * n_segments + (n_segments - 1 - i if REVERSE else i)
        tl.store(p_start + i_segment * channels * N + o_nd, b_h, mask=m_nd)
        b_dsum = tl.load(p_dsum + i_segment * channels + o_d, mask=m_d, other=0.0)
        b_end = tl.load(p_ends + i_segment * channels * N + o_nd, mask=m_nd, other=0.0)
        b_h = tl.exp2(b_dsum[None, :] * b_A) * b_h + b_end
