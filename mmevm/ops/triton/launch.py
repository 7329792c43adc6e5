"""Chooses tiles and segments for the Triton kernels, allocates what they need on the way, and launches them."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from mmevm.ops.autograd import CHUNK
from mmevm.ops.triton.backward_kernels import adjoint_kernel, scan_bwd_kernel
from mmevm.ops.triton.forward_kernels import carry_kernel, scan_fwd_kernel

FORWARD_TILE = 16
"""Tokens of a tile on the way forward, half a chunk: what a thread keeps of it leaves room for two programs on a
multiprocessor."""

MIN_SEGMENTS = 4
"""Segments cost a second pass over the tokens, which fewer of them would not make up for."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Inputs of ``batch`` x ``n_routes`` scans of ``length`` tokens; a sequence's groups are its routes.

    ``weight`` and ``routes`` are None for a sequence; ``delta`` is then like ``x``, else a map's projections.

    Attributes:
        x_strides (tuple): Strides of ``x`` over batch, routes, tokens (or cells) and channels.
        bc_strides (tuple): Strides of ``Bs`` and ``Cs`` over batch, groups (or projections), tokens and states.
        routes (tuple, optional): See :func:`mmevm.ops.triton.visual_scan.route_table`.
    """

    x: Tensor
    delta: Tensor
    A: Tensor
    Bs: Tensor
    Cs: Tensor
    Ds: Tensor | None
    bias: Tensor | None
    softplus: bool
    n_routes: int
    channels: int
    length: int
    x_strides: tuple[int, int, int, int]
    bc_strides: tuple[int, int, int, int]
    weight: Tensor | None = None
    routes: tuple[int, ...] | None = None
    size: tuple[int, int] = (1, 1)
    step: int = 1

    @property
    def batch(self) -> int:
        """Images, or sequences."""
        return self.x.shape[0]

    @property
    def blocks(self) -> dict[str, int]:
        """States and channels of a tile: a chain of tokens for each of 256 threads, fewer of float64, to fit in."""
        BN = triton.next_power_of_2(self.A.shape[-1])
        chains = 64 if self.A.dtype == torch.float64 else 256
        return {'BN': BN, 'BD': max(1, min(chains // BN, 64, triton.next_power_of_2(self.channels)))}

    @property
    def n_blocks(self) -> int:
        """Blocks of channels."""
        return triton.cdiv(self.channels, self.blocks['BD'])

    @property
    def n_chunks(self) -> int:
        """Chunks of a route."""
        return triton.cdiv(self.length, CHUNK)

    def new(self, *shape: int) -> Tensor:
        """An uninitialised tensor in the accumulation dtype."""
        return self.A.new_empty(shape)

    def new_states(self, save: bool) -> Tensor:
        """The uninitialised states before each chunk [B, n_routes, chunks, N, channels], or nothing."""
        shape = (self.batch, self.n_routes, self.n_chunks, self.A.shape[-1], self.channels)
        return self.new(*shape) if save else self.new(0)

    def arguments(self, n_segments: int, tile: int) -> dict[str, Any]:
        """What the scan's kernels take in common, for tiles of so many tokens."""
        per_segment = triton.cdiv(self.n_chunks, n_segments)
        arguments = {
            'p_delta': self.delta,
            'p_C': self.Cs,
            'p_weight': self.weight,
            'p_bias': self.bias,
            'p_A': self.A,
            'length': self.length,
            'H': self.size[0],
            'W': self.size[1],
            'step': self.step,
            'n_routes': self.n_routes,
            'channels': self.channels,
            'N': self.A.shape[-1],
            'R': 0 if self.weight is None else self.weight.shape[-1],
            'n_segments': n_segments,
            'segment': per_segment * CHUNK,
            'ROUTES': self.routes,
            'SOFTPLUS': self.softplus,
            'BL': tile,
            **self.blocks,
        }
        strides = zip('brtdbrtn', (*self.x_strides, *self.bc_strides), strict=True)
        return arguments | {f's_{"x" if i < 4 else "b"}{axis}': stride for i, (axis, stride) in enumerate(strides)}


def launch(kernel: Any, programs: int, scan: Scan, **arguments: Any) -> None:
    """Runs a kernel on the device of the scan's data.

    With 256 threads, most tiles give each thread a chain of its own, whose tokens it scans without asking others; tiles
    of few states share a chain between two threads, since other work on their tokens and channels weighs more there.
    """
    threads = min(256, 2 * arguments['BN'] * arguments['BD'])
    with torch.cuda.device_of(scan.x):
        kernel[(programs,)](**arguments, num_warps=max(1, threads // warp_size(scan.x.device)))


def warp_size(device: torch.device) -> int:
    """Threads of a warp: 32, or 64 on many of AMD's GPUs."""
    if device.type != 'cuda':
        return 32
    return getattr(torch.cuda.get_device_properties(device), 'warp_size', 64 if torch.version.hip else 32)


def programs_wanted(device: torch.device) -> int:
    """How many programs keep a device busy."""
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == 'cuda' else 1


def count_segments(scan: Scan) -> int:
    """Into how many runs of whole chunks a route is cut, so that a small batch of long routes occupies the device."""
    programs = scan.batch * scan.n_routes * scan.n_blocks
    segments = min(programs_wanted(scan.x.device) // max(programs, 1), scan.n_chunks // 2)
    if segments < MIN_SEGMENTS:
        return 1
    return triton.cdiv(scan.n_chunks, triton.cdiv(scan.n_chunks, segments))  # none is empty


def _carry(scan: Scan, ends: Tensor, dsum: Tensor, first: Tensor | None, reverse: bool) -> Tensor:
    """What enters each segment, [B, n_routes, n_segments, channels, N]."""
    start = torch.empty_like(ends)
    launch(
        carry_kernel,
        scan.batch * scan.n_routes * scan.n_blocks,
        scan,
        p_ends=ends,
        p_dsum=dsum,
        p_A=scan.A,
        p_first=first,
        p_start=start,
        n_routes=scan.n_routes,
        channels=scan.channels,
        N=scan.A.shape[-1],
        n_segments=ends.shape[2],
        ROUTES=scan.routes,
        REVERSE=reverse,
        **scan.blocks,
    )
    return start


def forward(scan: Scan, y: Tensor, layer: int, states: Tensor | None, last_state: Tensor | None) -> None:
    """Runs the scans.

    Args:
        scan (Scan): Inputs.
        y (Tensor): Written, like ``scan.x``, in layers of ``layer`` entries.
        layer (int): Entries of a layer of ``y``.
        states (Tensor[B, n_routes, chunks, N, channels], optional): Written.
        last_state (Tensor[B, n_routes, channels, N], optional): Written.
    """
    if scan.batch == 0:
        return
    S = count_segments(scan)
    programs = scan.batch * scan.n_routes * S * scan.n_blocks
    common = scan.arguments(S, FORWARD_TILE) | {'p_x': scan.x, 'p_B': scan.Bs, 'p_D': scan.Ds}
    common |= {'s_y': layer, 'CHUNK': CHUNK}
    start = None
    if S > 1:
        ends = scan.new(scan.batch, scan.n_routes, S, scan.channels, scan.A.shape[-1])
        dsum = scan.new(*ends.shape[:-1])
        nothing = {'p_start': None, 'p_states': None, 'p_y': None}
        launch(scan_fwd_kernel, programs, scan, **common, **nothing, p_ends=ends, p_dsum=dsum)
        start = _carry(scan, ends, dsum, None, reverse=False)
    results = {'p_states': states, 'p_y': y, 'p_ends': last_state, 'p_dsum': None}
    launch(scan_fwd_kernel, programs, scan, **common, **results, p_start=start)


def total(copies: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of copies [n, ...] in a dtype; a single one is taken as it is."""
    return (copies[0] if copies.shape[0] == 1 else copies.sum(0)).to(dtype)


@dataclass(frozen=True)
class ParameterGradients:
    """Gradients of the parameters that each route uses; None for those it has not.

    Attributes:
        A (Tensor[n_routes, channels, N]): Of ``A``.
        weight (Tensor[n_routes, channels, R]): Of ``weight``.
        bias (Tensor[n_routes, channels]): Of ``bias``.
        Ds (Tensor[n_routes, channels]): Of ``Ds``.
    """

    A: Tensor
    weight: Tensor | None
    bias: Tensor | None
    Ds: Tensor | None


def backward(
    scan: Scan, dy: Tensor, states: Tensor, dlast_state: Tensor | None, outputs: dict[str, Any]
) -> ParameterGradients:
    """Runs the scans' backward pass.

    Args:
        scan (Scan): Inputs.
        dy (Tensor): Like ``scan.x``.
        states (Tensor[B, n_routes, chunks, N, channels]): What :func:`forward` saved.
        dlast_state (Tensor[B, n_routes, channels, N], optional): In the accumulation dtype.
        outputs (dict): ``p_dx``, ``p_ddelta``, ``p_dB``, ``p_dC``, ``s_y`` and ``s_copy`` of ``scan_bwd_kernel``.

    Returns:
        ParameterGradients: Summed over batch and segments.
    """
    S = count_segments(scan)
    programs = scan.batch * scan.n_routes * S * scan.n_blocks
    rows = (scan.batch, scan.n_routes, S, scan.channels)
    dA = scan.new(*rows, scan.A.shape[-1])
    dweight = None if scan.weight is None else scan.new(*rows, scan.weight.shape[-1]).zero_()
    dbias, dD = (None if t is None else scan.new(*rows) for t in (scan.bias, scan.Ds))
    if scan.batch:
        common = scan.arguments(S, CHUNK) | {'p_dy': dy}
        carry = dlast_state
        if S > 1:
            ends, dsum = torch.empty_like(dA), scan.new(*rows)
            launch(adjoint_kernel, programs, scan, **common, p_ends=ends, p_dsum=dsum)
            carry = _carry(scan, ends, dsum, dlast_state, reverse=True)
        inputs = {'p_x': scan.x, 'p_B': scan.Bs, 'p_D': scan.Ds, 'p_states': states, 'p_carry': carry}
        sums = {'p_dweight': dweight, 'p_dbias': dbias, 'p_dA': dA, 'p_dD': dD}
        launch(scan_bwd_kernel, programs, scan, **common, **inputs, **sums, **outputs)
    return ParameterGradients(dA.sum((0, 2)), *(None if t is None else t.sum((0, 2)) for t in (dweight, dbias, dD)))
