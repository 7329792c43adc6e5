"""Checks of the arguments of backbones."""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from mmevm.registry import type_name

_PRETRAINED_KEYS = ('type', 'checkpoint', 'prefix', 'map_location', '_scope_')


def whole_number(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Return an argument as an integer.

    Raises:
        TypeError: If it is none.
        ValueError: If it is outside ``least`` to ``most``.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f'`{name}` must be an integer, got {value!r}')
    if (least is not None and value < least) or (most is not None and value > most):
        limits = f'at least {least}' if most is None else f'from {least} to {most}'
        raise ValueError(f'`{name}` must be {limits}, got {value}')
    return int(value)


def whole_numbers(name: str, values: Any, least: int | None = None) -> list[int]:
    """Return an argument as a list of integers.

    Raises:
        TypeError: If it is none.
        ValueError: If one is below ``least``.
    """
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise TypeError(f'`{name}` must be a sequence of integers, got {values!r}')
    return [whole_number(f'{name}[{i}]', value, least) for i, value in enumerate(values)]


def flag(name: str, value: Any) -> bool:
    """Return an argument as a truth value.

    Raises:
        TypeError: If it is none, as the text 'False' is, which would count as true.
    """
    if value not in (0, 1):
        raise TypeError(f'`{name}` must be True or False, got {value!r}')
    return bool(value)


def check_number(name: str, value: Any) -> None:
    """Check that an argument is a number.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f'`{name}` must be a number, got {value!r}')


def drop_path_rates(rate: float, count: int) -> list[float]:
    """Return the stochastic depth rates of blocks, which grow linearly from 0 to ``rate``.

    Raises:
        TypeError: If ``rate`` is no number.
    """
    check_number('drop_path_rate', rate)
    return [rate * i / max(count - 1, 1) for i in range(count)]


def output_indices(out_indices: Any, count: int, parts: str, negative: bool = False) -> tuple[int, ...]:
    """Return the stages or blocks whose output is returned; maps are returned, and named, in the order of the network.

    Args:
        out_indices (Sequence[int]): The argument.
        count (int): How many stages or blocks there are.
        parts (str): What they are called.
        negative (bool): Whether negative indices count from the last.

    Raises:
        TypeError: If it is no sequence of integers.
        ValueError: If it is empty, has an index that does not exist, one twice, or a later one first.
    """
    least = -count if negative else 0
    given = whole_numbers('out_indices', out_indices)
    indices = [i + count if negative and i < 0 else i for i in given]
    if not indices or not set(indices) <= set(range(count)):
        raise ValueError(f'`out_indices` must name {parts} from {least} to {count - 1}, got {out_indices}')
    if indices != sorted(set(indices)):
        raise ValueError(f'`out_indices` must name {parts} in ascending order, each once, got {out_indices}')
    return tuple(indices)


def is_pretrained(config: Mapping[str, Any]) -> bool:
    """Return whether an entry of an ``init_cfg`` names pretrained weights, by the initialiser's name or class."""
    return type_name(config) in ('Pretrained', 'PretrainedInit')


def init_configs(init_cfg: Any) -> list[dict[str, Any]]:
    """Return the entries of an ``init_cfg``.

    Raises:
        TypeError: If it is no dict, and no list or tuple of dicts.
    """
    configs = list(init_cfg) if isinstance(init_cfg, list | tuple) else [init_cfg] if init_cfg else []
    if not all(isinstance(config, dict) for config in configs):
        raise TypeError(
            "`init_cfg` must be None, a dict such as dict(type='Pretrained', checkpoint='FILE'), or a list of dicts, "
            f'got {init_cfg!r:.200}'
        )
    return configs


def check_init(config: Mapping[str, Any]) -> None:
    """Check an entry of an ``init_cfg``: its type, and what one of pretrained weights has besides.

    Raises:
        TypeError: If ``prefix`` is no text.
        ValueError: If ``type`` or ``checkpoint`` is absent or empty, or there is a key that is unknown.
    """
    if not config.get('type'):
        raise ValueError(f"`init_cfg` needs a `type`, such as 'Pretrained', got {dict(config)}")
    if not is_pretrained(config):
        return
    unknown = [key for key in config if key not in _PRETRAINED_KEYS]
    if unknown:
        keys = ', '.join(_PRETRAINED_KEYS[:4])
        raise ValueError(f'`init_cfg` of pretrained weights may have the keys {keys}, got {", ".join(unknown)}, too')
    checkpoint, prefix = config.get('checkpoint'), config.get('prefix')
    if checkpoint is None or checkpoint == '':
        got = repr(checkpoint) if 'checkpoint' in config else 'none'
        raise ValueError(
            f'`init_cfg` of pretrained weights needs a `checkpoint`, a file, an address or mmevm://NAME, got {got}; '
            'for random weights use init_cfg=None'
        )
    if not isinstance(prefix, str | None):
        raise TypeError(f'`prefix` in `init_cfg` must be a string or None, got {prefix!r}')
