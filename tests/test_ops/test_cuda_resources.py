"""Registers, spills, shared memory and occupancy of the CUDA kernels against tests/data/cuda_resources.json.

Here for one architecture and the files of half-precision data; ``make test-cuda-resources`` compares all of them.
"""

import json

import pytest

from . import cuda_resources
from .cuda_resources import CARDS, TABLE, occupancy, plan, resident_warps, worse

ARCHITECTURE = '90'


@pytest.fixture(scope='module')
def table() -> dict:
    """The table, of the compiler that made it."""
    return json.loads(TABLE.read_text(encoding='utf-8'))


def test_kernels_take_no_more_than_the_table_says(table: dict) -> None:
    release = cuda_resources.nvcc_release()
    if release != table['nvcc']:
        pytest.skip(f'the table is of nvcc {table["nvcc"]}, this is {release}')
    expected = table['kernels'][ARCHITECTURE]
    kernels = cuda_resources.compile_all(ARCHITECTURE, ('map_half',))
    assert kernels.keys() == {name for name in expected if name.startswith('map_half')}
    assert worse(kernels, expected) == []


@pytest.mark.parametrize('card', CARDS)
def test_blocks_leave_room_for_as_many_warps_as_the_table_says(card: str, table: dict) -> None:
    now = occupancy(table['kernels'][CARDS[card].architecture], CARDS[card])
    assert now == table['occupancy'][card]


def test_kernels_spill_next_to_nothing(table: dict) -> None:
    """The loops over the states take all registers; what they push out is stored and loaded once a tile, outside."""
    for kernels in table['kernels'].values():
        for name, taken in kernels.items():
            assert taken['stored'] <= (4 if name.startswith('map') else 24), name
            # As many as __launch_bounds__ leaves to a thread.
            assert taken['registers'] <= (168 if 'scan_backward' in name else 128), name
        for name in ('scan_forward output 16', 'scan_forward local 16', 'adjoint_local 16', 'scan_backward 16'):
            assert kernels[f'map_half {name}']['stack'] == 0


def test_what_got_worse_is_named() -> None:
    before = {'a': {'registers': 128, 'stack': 0, 'stored': 0, 'loaded': 0}}
    assert worse(before, before) == []
    now = {'a': before['a'] | {'registers': 130, 'stack': 8, 'loaded': 4}, 'b': before['a']}
    assert worse(now, before) == [
        'a: stack 8 bytes instead of 0',
        'a: loaded 4 bytes instead of 0',
        'a: 130 registers leave 12 warps instead of 16',
        'b is not in the table',
    ]
    better = {'a': before['a'] | {'registers': 120}}
    assert worse(better, before) == []


@pytest.mark.parametrize(
    'card, threads, registers, shared_bytes, warps',
    [
        ('H100', 96, 168, 36 << 10, 12),  # registers: 3 warps for each quarter of a multiprocessor
        ('H100', 96, 128, 16 << 10, 15),
        ('A100', 96, 168, 42 << 10, 9),  # shared memory, of which each block takes another KiB
        ('RTX 4090', 128, 40, 1 << 10, 48),  # threads
        ('T4', 32, 40, 1 << 10, 16),  # blocks
    ],
)
def test_occupancy_follows_the_scarcest_resource(
    card: str, threads: int, registers: int, shared_bytes: int, warps: int
) -> None:
    assert resident_warps(CARDS[card], threads, registers, shared_bytes) == warps


def test_blocks_are_split_by_what_a_card_has_room_for() -> None:
    case = cuda_resources.Case(128, 14, 128, 16, 24)
    splits = {name: plan(card, case, True) for name, card in CARDS.items()}
    # A multiprocessor of the first has room for one block of 128 channels, or for three of 64.
    assert (splits['RTX 4090']['threads'], splits['RTX 4090']['channel_blocks']) == (64, 2)
    assert (splits['H100']['threads'], splits['H100']['channel_blocks']) == (128, 1)


def test_the_backward_pass_halves_its_states_before_a_device_idles() -> None:
    card = CARDS['H100']
    case = cuda_resources.CASES['EVM-T stage 1']
    for batch, states, slices, segments in ((128, 16, 1, 1), (64, 8, 2, 1), (48, 8, 2, 1), (16, 16, 1, 7)):
        split = plan(card, case._replace(batch=batch), True)
        assert (split['states'], split['slices'], split['segments']) == (states, slices, segments), batch
    assert plan(card, case._replace(batch=64), False)['slices'] == 1
