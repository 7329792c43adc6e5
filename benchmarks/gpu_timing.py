"""Interleaved timing with CUDA events, and the floors that measurements are compared with.

A floor is the least time a device can need: for one atrous scan, the bytes that have to pass its memory at the rate of
a copy measured here, and the exponentials at the rate of its special-function units. The larger of the two applies.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import timing
import torch

EXPONENTIALS_PER_CLOCK = 16
"""Of one multiprocessor's special-function units, from compute capability 5.0 to 9.0 (CUDA C++ Programming Guide)."""

# Shorter samples are made of several calls, so that an event's resolution and a launch do not matter.
SAMPLE_MS = 5.0
MAX_CALLS = 50

COPY_BYTES = 2**30

Run = Callable[[], Any]


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; the CPU needs no waiting."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def sample(function: Run, device: torch.device, calls: int = 1) -> float:
    """Return milliseconds per call, after an untimed call, so that the GPU is busy when the clock starts."""
    function()
    if device.type != 'cuda':
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return 1e3 * (time.perf_counter() - start) / calls
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    for _ in range(calls):
        function()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / calls


def interleaved(
    callables: Mapping[str, Run], device: torch.device, repeats: int, warmup: int, seconds: float
) -> dict[str, list[float]]:
    """Time callables in turn, one sample of each per round in shuffled order, so that drift affects all alike.

    Args:
        callables (Mapping[str, Callable]): What to time, by name.
        device (torch.device): Where they run.
        repeats (int): Rounds, at least 1.
        warmup (int): Untimed calls of each, at least 1.
        seconds (float): After these no further round begins.

    Returns:
        dict[str, list[float]]: Milliseconds per call of every sample, by name.
    """
    samplers = {name: partial(sample, run, device, _calls(run, device, warmup)) for name, run in callables.items()}
    return timing.take_turns(samplers, repeats, seconds=seconds)


def _calls(function: Run, device: torch.device, warmup: int) -> int:
    """Warm up, and choose the calls per sample."""
    for _ in range(warmup):
        function()
    synchronize(device)
    return max(1, min(MAX_CALLS, round(SAMPLE_MS / max(sample(function, device), 1e-3))))


def graphed(function: Run, device: torch.device) -> Run | None:
    """Return a CUDA graph of the function, whose replay needs no launches from Python; None on the CPU."""
    if device.type != 'cuda':
        return None
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


@dataclass(frozen=True)
class Rates:
    """The highest rates of a device.

    Attributes:
        bandwidth (float): Bytes per second, read and written together, of a device-to-device copy.
        exponentials (float or None): Per second, on all special-function units; None on the CPU.
    """

    bandwidth: float
    exponentials: float | None

    def es2d_floors(
        self, B: int, H: int, W: int, D: int, N: int, R: int, itemsize: int = 2, segments: int = 1
    ) -> tuple[float, float | None]:
        """Return milliseconds that the bytes, and the exponentials, of one ES2D forward pass need.

        The map and the projections are read once and the output is written once; every cell, channel and state needs
        one exponential. Where routes are cut into segments, a first pass over all but the last finds the states that
        enter them, for which it reads the map, the time steps and B, and takes the exponentials, too.
        """
        cells = B * H * W
        twice = 1 - 1 / segments
        bytes_ms = 1e3 * cells * (2 * D + R + 2 * N + twice * (D + R + N)) * itemsize / self.bandwidth
        return bytes_ms, 1e3 * (1 + twice) * cells * D * N / self.exponentials if self.exponentials else None


def measure_rates(device: torch.device, copy_bytes: int = COPY_BYTES) -> Rates:
    """Measure the bandwidth of a copy; take the exponentials from the device's properties."""
    source = torch.zeros(copy_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = interleaved({'copy': lambda: target.copy_(source)}, device, repeats=10, warmup=3, seconds=5)['copy']
    return Rates(2 * copy_bytes / (1e-3 * sorted(times)[len(times) // 2]), exponential_rate(device))


def exponential_rate(device: torch.device) -> float | None:
    """Return exponentials per second of a GPU's special-function units, from its properties; None for a CPU."""
    if device.type != 'cuda':
        return None
    properties = torch.cuda.get_device_properties(device)
    return EXPONENTIALS_PER_CLOCK * properties.multi_processor_count * 1e3 * properties.clock_rate  # kHz
