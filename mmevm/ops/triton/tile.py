"""What the Triton kernels share: indices, addresses of a tile of tokens, time steps, and the scans' operators.

Names follow flash-linear-attention: ``i_`` indices of a program, ``p_`` pointers, ``b_`` tiles, ``o_`` offsets, ``m_``
masks, ``s_`` strides; ``BL``, ``BN`` and ``BD`` are a tile's tokens, states and channels.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)

UNSPECIALISED = ('length', 'H', 'W', 'n_segments', 'segment', 's_xb', 's_bb', 's_y', 's_copy')
"""Arguments that vary with the size of the images: a kernel would be compiled again for those that 16 divides."""


@triton.jit
def program_indices(n_blocks, n_segments, n_routes):
    """Channel block, segment, route and image of this program; the last two in 64 bits, since they scale arrays."""
    i = tl.program_id(0)
    i_d = i % n_blocks
    i_s = i // n_blocks % n_segments
    i_br = i // n_blocks // n_segments
    return i_d, i_s, (i_br % n_routes).to(tl.int64), (i_br // n_routes).to(tl.int64)


@triton.jit
def route_field(ROUTES: tl.constexpr, i_r, FIELD: tl.constexpr):
    """A field of route ``i_r``, chosen among constants; see ``route_table``."""
    value = tl.full((), ROUTES[FIELD], tl.int64)
    for i in tl.static_range(1, len(ROUTES) // 8):
        value = tl.where(i_r == i, ROUTES[8 * i + FIELD], value)
    return value


@triton.jit
def route_indices(ROUTES: tl.constexpr, i_r):
    """Parameter set and projection of a route; a sequence's group has its own."""
    i_q, i_p = i_r, i_r
    if ROUTES is not None:
        i_q, i_p = route_field(ROUTES, i_r, 4), route_field(ROUTES, i_r, 5)
    return i_q, i_p


@triton.jit
def token_cells(ROUTES: tl.constexpr, i_r, o_t, length, H, W, step):
    """Where tokens lie, counted in tokens of a sequence or cells of a map, and which of them exist.

    Tokens past the map's edge have no cell; neither have those past the route's end.
    """
    m_t = o_t < length
    if ROUTES is None:
        o_c = o_t.to(tl.int64)
    else:
        column_major = route_field(ROUTES, i_r, 2) != 0
        o_l = tl.where(route_field(ROUTES, i_r, 3) != 0, length - 1 - o_t, o_t)
        inner = tl.where(column_major, tl.cdiv(H, step), tl.cdiv(W, step))
        o_h = route_field(ROUTES, i_r, 0) + step * tl.where(column_major, o_l % inner, o_l // inner)
        o_w = route_field(ROUTES, i_r, 1) + step * tl.where(column_major, o_l // inner, o_l % inner)
        m_t = m_t & (o_h < H) & (o_w < W)
        o_c = o_h * W + o_w
    return o_c, m_t


@triton.jit
def channel_tile(i_d, channels, N, BN: tl.constexpr, BD: tl.constexpr):
    """States and channels of a program, and their places in rows of N states for each channel.

    Returns:
        Offsets and masks of the states [BN], the channels [BD], and both [BN, BD].
    """
    o_n = tl.arange(0, BN)
    o_d = (i_d * BD + tl.arange(0, BD)).to(tl.int64)
    m_n, m_d = o_n < N, o_d < channels
    return o_n, o_d, m_n, m_d, o_d[None, :] * N + o_n[:, None], m_n[:, None] & m_d[None, :]


@triton.jit
def load_rates(p_A, i_q, channels, N, o_nd, m_nd):
    """A of a program's states and channels [BN, BD], in units of log2."""
    return tl.load(p_A + i_q * channels * N + o_nd, mask=m_nd, other=0.0) * LOG2E


@triton.jit
def token_tile(o_c, m_c, o_sequence, o_projection, o_d, m_d, o_n, m_n, s_xt, s_xd, s_bt, s_bn):
    """Where the tokens at cells ``o_c`` lie.

    Returns:
        Offsets and masks in x [BL, BD] and in B and C [BL, BN], and the offsets [BL] of the tokens' projections.
    """
    o_x = o_sequence + o_c[:, None] * s_xt + o_d[None, :] * s_xd
    o_b = o_c * s_bt
    o_bn = o_projection + o_b[:, None] + o_n[None, :] * s_bn
    return o_x, m_c[:, None] & m_d[None, :], o_bn, m_c[:, None] & m_n[None, :], o_b


@triton.jit
def softplus(x):
    """max(x, 0) + log1p(exp(-|x|)): no overflow, and small results keep their relative precision."""
    t = tl.exp(-tl.abs(x))
    if x.dtype == tl.float64:
        w = 1 + t
        log1p = tl.where(w == 1, t, tl.log(w) * (t / tl.where(w == 1, 1.0, w - 1)))
    else:
        # A polynomial with relative error 5e-9 for t in [0, 1]: GPUs compute logarithms with an absolute error, which
        # is all that would be left of a small time step.
        log1p = t * -0.00324402461459 + 0.0198514598454
        log1p = log1p * t - 0.0569595295848
        log1p = log1p * t + 0.106036544189
        log1p = log1p * t - 0.153055923055
        log1p = log1p * t + 0.196759391713
        log1p = log1p * t - 0.249541336417
        log1p = log1p * t + 0.333299624158
        log1p = log1p * t - 0.499999024228
        log1p = (log1p * t + 0.999999995287) * t
    return tl.maximum(x, 0.0) + log1p


@triton.jit
def softplus_derivative(x):
    """The logistic function, without overflow."""
    t = tl.exp(-tl.abs(x))
    return tl.where(x < 0, t, 1.0) / (1 + t)


@triton.jit
def load_raw_delta(p_delta, p_weight, p_bias, o_x, o_b, o_d, m_c, m_d, R, ACC: tl.constexpr):
    """Time steps of a tile before softplus, [BL, BD].

    For a map (``p_weight`` given) they are projected from the R values at ``p_delta + o_b``, else read at
    ``p_delta + o_x``. Cells past the edge have R zeros, so that the state decays by softplus(bias) over them.
    """
    m_x = m_c[:, None] & m_d[None, :]
    if p_weight is None:
        b_raw = tl.load(p_delta + o_x, mask=m_x, other=0.0).to(ACC)
    else:
        b_raw = tl.zeros(m_x.shape, ACC)
        for r in range(R):
            b_rank = tl.load(p_delta + o_b + r, mask=m_c, other=0.0).to(ACC)
            b_weight = tl.load(p_weight + o_d * R + r, mask=m_d, other=0.0)
            b_raw += b_rank[:, None] * b_weight[None, :]
    if p_bias is not None:
        b_raw += tl.load(p_bias + o_d, mask=m_d, other=0.0)[None, :]
    return b_raw


@triton.jit
def time_steps(b_raw, m_t, m_d, SOFTPLUS: tl.constexpr):
    """Time steps of a tile, [BL, BD]; zero past the route's end, where the state stays as it is."""
    b_delta = b_raw
    if SOFTPLUS:
        b_delta = softplus(b_raw)
    return tl.where(m_t[:, None] & m_d[None, :], b_delta, 0.0)


@triton.jit
def recurrence(a_first, b_first, a_then, b_then):
    """h = a h' + b, twice: the operator of the scan for the states."""
    return a_first * a_then, a_then * b_first + b_then


@triton.jit
def scan_states(b_a, b_b, b_h, o_l):
    """The states h_t = a_t h_{t-1} + b_t after each token of a tile, [BL, BN, BD], from the state ``b_h`` before it."""
    b_b += tl.where((o_l == 0)[:, None, None], b_a * b_h[None, :, :], 0.0)
    _, b_hs = tl.associative_scan((b_a, b_b), 0, recurrence)
    return b_hs


@triton.jit
def scan_adjoints(b_next, b_c, b_carry, o_l, BL: tl.constexpr):
    """The adjoints g_t = c_t + a_{t+1} g_{t+1} of a tile's states, in the order of the tokens.

    Their scan goes from the last token to the first. Triton's own ``reverse`` exchanges every operand between threads
    before and after, and has been wrong in some versions; instead, the operands come in that order, and only the result
    is turned.

    Args:
        b_next: a_{t+1} of the tokens from the last to the first, [BL, BN, BD].
        b_c: c_t, in the same order.
        b_carry: g of the token after the tile, [BN, BD].

    Returns:
        g in the order of the tokens [BL, BN, BD], and that of the first token [BN, BD].
    """
    b_g = scan_states(b_next, b_c, b_carry, o_l)
    return tl.flip(b_g, 0), row(b_g, o_l, BL - 1)


@triton.jit
def row(b_tile, o_l, i_l):
    """Token ``i_l`` of a tile [BL, BN, BD]."""
    return tl.sum(tl.where((o_l == i_l)[:, None, None], b_tile, 0.0), 0)
