"""The scan backward: adjoints of the states from the last token to the first, and every gradient from them."""

import triton
import triton.language as tl

from mmevm.ops.triton.tile import (
    LN2,
    UNSPECIALISED,
    channel_tile,
    load_rates,
    load_raw_delta,
    program_indices,
    route_field,
    route_indices,
    scan_adjoints,
    scan_states,
    softplus_derivative,
    time_steps,
    token_cells,
    token_tile,
)


@triton.jit(do_not_specialize=UNSPECIALISED)
def adjoint_kernel(
    p_delta,
    p_C,
    p_weight,
    p_bias,
    p_A,
    p_dy,
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
    ROUTES: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    BL: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    """Finds the adjoint of the state before each segment, from zero at its end, and the sum of its time steps.

    Args:
        p_dy: Like ``p_x``.
        p_ends, p_dsum: Written, [B, n_routes, n_segments, channels, N] and [B, n_routes, n_segments, channels].

    The others are those of ``scan_fwd_kernel``.
    """
    ACC: tl.constexpr = p_A.dtype.element_ty
    i_d, i_s, i_r, i_b = program_indices(tl.cdiv(channels, BD), n_segments, n_routes)
    i_q, i_p = route_indices(ROUTES, i_r)
    o_l = tl.arange(0, BL)
    o_n, o_d, m_n, m_d, o_nd, m_nd = channel_tile(i_d, channels, N, BN, BD)

    o_sequence = i_b * s_xb + i_r * s_xr
    o_projection = i_b * s_bb + i_p * s_br
    if p_weight is not None:
        p_delta += o_projection
        p_weight += i_q * channels * R
    if p_bias is not None:
        p_bias += i_q * channels
    b_A = load_rates(p_A, i_q, channels, N, o_nd, m_nd)
    b_carry = tl.zeros([BN, BD], ACC)
    b_dsum = tl.zeros([BD], ACC)

    t_first = i_s * segment
    n_tiles = tl.cdiv(min(length, t_first + segment) - t_first, BL)
    for i in range(n_tiles):
        o_t = t_first + (n_tiles - 1 - i) * BL + o_l
        o_c, m_c = token_cells(ROUTES, i_r, o_t, length, H, W, step)
        o_x, m_x, o_bn, m_b, o_b = token_tile(
            o_c, m_c, o_sequence, o_projection, o_d, m_d, o_n, m_n, s_xt, s_xd, s_bt, s_bn
        )
        b_dy = tl.load(p_dy + o_x, mask=m_x, other=0.0).to(ACC)
        b_C = tl.load(p_C + o_bn, mask=m_b, other=0.0).to(ACC)
        b_raw = load_raw_delta(p_delta, p_weight, p_bias, o_x, o_b, o_d, m_c, m_d, R, ACC)
        b_delta = time_steps(b_raw, o_t < length, m_d, SOFTPLUS)
        # The decay from before the tile to a token; exponents are sums over the tile, never differences of sums.
        b_decay = tl.exp2(tl.cumsum(b_delta, 0)[:, None, :] * b_A[None, :, :])
        b_tile = tl.sum(b_delta, 0)
        b_carry *= tl.exp2(b_tile[None, :] * b_A)
        b_carry += tl.sum(b_decay * (b_dy[:, None, :] * b_C[:, :, None]), 0)
        b_dsum += b_tile

    i_segment = (i_b * n_routes + i_r) * n_segments + i_s
    tl.store(p_ends + i_segment * channels * N + o_nd, b_carry, mask=m_nd)
    tl.store(p_dsum + i_segment * channels + o_d, b_dsum, mask=m_d)


@triton.jit(do_not_specialize=UNSPECIALISED)
def scan_bwd_kernel(
    p_x,
    p_delta,
    p_B,
    p_C,
    p_weight,
    p_bias,
    p_A,
    p_D,
    p_dy,
    p_states,
    p_carry,
    p_dx,
    p_ddelta,
    p_dB,
    p_dC,
    p_dweight,
    p_dbias,
    p_dA,
    p_dD,
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
    s_copy,
    ROUTES: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    BL: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    """Walks back over one segment of one route of one image, for BD channels, one chunk of BL tokens at a time.

    Args:
        p_dy, p_states: Gradient of ``y``, and the states that ``scan_fwd_kernel`` saved before each chunk.
        p_carry: Adjoint of the state after each segment, [B, n_routes, n_segments, channels, N], or None for zero.
        p_dx: Written, like ``p_x``, in layers of ``s_y`` entries.
        p_ddelta, p_dB, p_dC: Like ``p_delta``, ``p_B`` and ``p_C``. A sequence's ``p_ddelta`` is written; the others
            are sums over channels, added to, in copies of ``s_copy`` entries for each layer and block of channels.
        p_dweight: Added to, [B, n_routes, n_segments, channels, R].
        p_dbias, p_dA, p_dD: Written, [B, n_routes, n_segments, channels], with [..., N] for ``p_dA``.

    The others are those of ``scan_fwd_kernel``.
    """
    ACC: tl.constexpr = p_A.dtype.element_ty
    n_blocks = tl.cdiv(channels, BD)
    i_d, i_s, i_r, i_b = program_indices(n_blocks, n_segments, n_routes)
    i_q, i_p = route_indices(ROUTES, i_r)
    i_scan = i_b * n_routes + i_r
    i_segment = i_scan * n_segments + i_s
    o_l = tl.arange(0, BL)
    o_n, o_d, m_n, m_d, o_nd, m_nd = channel_tile(i_d, channels, N, BN, BD)

    o_sequence = i_b * s_xb + i_r * s_xr
    o_projection = i_b * s_bb + i_p * s_br
    o_copy = i_d.to(tl.int64) * s_copy
    if ROUTES is not None:
        p_dx += route_field(ROUTES, i_r, 6) * s_y
        o_copy += route_field(ROUTES, i_r, 7) * n_blocks * s_copy
    p_dB += o_copy
    p_dC += o_copy
    if p_weight is not None:
        p_delta += o_projection
        p_ddelta += o_copy + o_projection
        p_weight += i_q * channels * R
        p_dweight += i_segment * channels * R
    if p_bias is not None:
        p_bias += i_q * channels
    b_A = load_rates(p_A, i_q, channels, N, o_nd, m_nd)
    b_D = tl.zeros([BD], ACC)
    if p_D is not None:
        b_D = tl.load(p_D + i_q * channels + o_d, mask=m_d, other=0.0)
    b_carry = tl.zeros([BN, BD], ACC)
    if p_carry is not None:
        b_carry = tl.load(p_carry + i_segment * channels * N + o_nd, mask=m_nd, other=0.0).to(ACC)
    b_dA = tl.zeros([BN, BD], ACC)
    b_dD = tl.zeros([BD], ACC)
    b_dbias = tl.zeros([BD], ACC)

    t_first = i_s * segment
    t_end = min(length, t_first + segment)
    n_tiles = tl.cdiv(t_end - t_first, BL)
    for i in range(n_tiles):
        i_t = t_first + (n_tiles - 1 - i) * BL
        # The adjoints, for which tokens come from the last to the first, each with the time step of the one after it.
        # What enters a segment has been multiplied by the decay of the token that it comes from.
        o_r = i_t + BL - 1 - o_l
        o_rc, m_rc = token_cells(ROUTES, i_r, o_r, length, H, W, step)
        o_rx, m_rx, o_rbn, m_rb, _ = token_tile(
            o_rc, m_rc, o_sequence, o_projection, o_d, m_d, o_n, m_n, s_xt, s_xd, s_bt, s_bn
        )
        b_rdy = tl.load(p_dy + o_rx, mask=m_rx, other=0.0).to(ACC)
        b_rC = tl.load(p_C + o_rbn, mask=m_rb, other=0.0).to(ACC)
        o_nc, m_nc = token_cells(ROUTES, i_r, o_r + 1, length, H, W, step)
        o_nx, _, _, _, o_nb = token_tile(
            o_nc, m_nc, o_sequence, o_projection, o_d, m_d, o_n, m_n, s_xt, s_xd, s_bt, s_bn
        )
        b_next = load_raw_delta(p_delta, p_weight, p_bias, o_nx, o_nb, o_d, m_nc, m_d, R, ACC)
        b_next = time_steps(b_next, o_r + 1 < t_end, m_d, SOFTPLUS)
        b_next = tl.exp2(b_next[:, None, :] * b_A[None, :, :])
        b_g, b_carry = scan_adjoints(b_next, b_rdy[:, None, :] * b_rC[:, :, None], b_carry, o_l, BL)

        o_t = i_t + o_l
        m_t = o_t < length
        o_c, m_c = token_cells(ROUTES, i_r, o_t, length, H, W, step)
        o_x, m_x, o_bn, m_b, o_b = token_tile(
            o_c, m_c, o_sequence, o_projection, o_d, m_d, o_n, m_n, s_xt, s_xd, s_bt, s_bn
        )
        b_x = tl.load(p_x + o_x, mask=m_x, other=0.0).to(ACC)
        b_dy = tl.load(p_dy + o_x, mask=m_x, other=0.0).to(ACC)
        b_B = tl.load(p_B + o_bn, mask=m_b, other=0.0).to(ACC)
        b_raw = load_raw_delta(p_delta, p_weight, p_bias, o_x, o_b, o_d, m_c, m_d, R, ACC)
        b_delta = time_steps(b_raw, m_t, m_d, SOFTPLUS)
        o_state = (i_scan * tl.cdiv(length, BL) + i_t // BL) * N + o_n
        b_h = tl.load(p_states + o_state[:, None] * channels + o_d[None, :], mask=m_nd, other=0.0)

        b_a = tl.exp2(b_delta[:, None, :] * b_A[None, :, :])
        b_drive = b_delta * b_x
        b_b = b_drive[:, None, :] * b_B[:, :, None]
        b_hs = scan_states(b_a, b_b, b_h, o_l)
        tl.atomic_add(p_dB + o_bn, tl.sum(b_g * b_drive[:, None, :], 2), mask=m_b, sem='relaxed')
        tl.atomic_add(p_dC + o_bn, tl.sum(b_hs * b_dy[:, None, :], 2), mask=m_b, sem='relaxed')
        # The gradient of delta * A: g a h', where a h' = h - b. A compiler may fuse the product that b is with the
        # difference, which leaves b's rounding where a huge time step made a zero.
        b_e = b_g * tl.where(b_a == 0.0, 0.0, b_hs - b_b)
        b_ddrive = tl.sum(b_g * b_B[:, :, None], 1)
        b_ddelta = tl.sum(b_e * b_A[None, :, :], 1) * LN2 + b_ddrive * b_x
        if SOFTPLUS:
            b_ddelta *= softplus_derivative(b_raw)
        b_ddelta = tl.where(m_t[:, None], b_ddelta, 0.0)
        b_dA += tl.sum(b_e * b_delta[:, None, :], 0)
        b_dD += tl.sum(b_dy * b_x, 0)
        b_dbias += tl.sum(b_ddelta, 0)
        b_dx = b_ddrive * b_delta + b_dy * b_D[None, :]
        tl.store(p_dx + o_x, b_dx, mask=m_x)
        if p_weight is None:
            tl.store(p_ddelta + o_x, b_ddelta, mask=m_x)
        else:
            for r in range(R):
                b_rank = tl.load(p_delta + o_b + r, mask=m_c, other=0.0).to(ACC)
                b_weight = tl.load(p_weight + o_d * R + r, mask=m_d, other=0.0)
                b_drank = tl.sum(b_ddelta * b_weight[None, :], 1)
                tl.atomic_add(p_ddelta + o_b + r, b_drank, mask=m_c, sem='relaxed')
                # Nobody else adds here: the row is this program's own.
                b_dweight = tl.sum(b_ddelta * b_rank[:, None], 0)
                tl.atomic_add(p_dweight + o_d * R + r, b_dweight, mask=m_d, sem='relaxed')

    tl.store(p_dA + i_segment * channels * N + o_nd, b_dA, mask=m_nd)
    if p_dD is not None:
        tl.store(p_dD + i_segment * channels + o_d, b_dD, mask=m_d)
    if p_dbias is not None:
        tl.store(p_dbias + i_segment * channels + o_d, b_dbias, mask=m_d)
