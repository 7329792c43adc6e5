"""Check that a file is what its entry says: the same bytes, plain data, the right variant."""

from pathlib import Path

from mmevm.checkpoint.identify import build_backbone
from mmevm.checkpoint.load import fit_checkpoint
from mmevm.checkpoint.weights_only import CheckpointError, load_file
from mmevm.files import archive_damage, file_hash
from mmevm.zoo.entries import Entry

_HEADS = {'classification': 'classifier.head.', 'detection': 'roi_head.', 'segmentation': 'decode_head.'}
_SIZE_TOLERANCE = 0.01  # the hub lists three digits


class BytesError(CheckpointError):
    """A file whose bytes are not those that its authors published; downloading it again may help."""


def check_bytes(path: Path, entry: Entry, expected: dict[str, str]) -> str:
    """Check size, hash and, in zip files, checksums.

    Args:
        path (Path): A local file.
        entry (Entry): What it should be.
        expected (dict[str, str]): SHA-256 hashes it must have, by where they come from.

    Returns:
        str: Its SHA-256.

    Raises:
        BytesError: If anything differs.
    """
    size = path.stat().st_size
    if entry.size and abs(size - entry.size) > _SIZE_TOLERANCE * entry.size:
        raise BytesError(f'{path} has {size} bytes, expected about {entry.size}: it is truncated or another file')
    sha256 = file_hash(path)
    for origin, value in expected.items():
        if sha256 != value:
            raise BytesError(
                f'{path} has the SHA-256 {sha256}, expected {value} ({origin}): it was altered or replaced'
            )
    if damage := archive_damage(path):
        raise BytesError(f'{path} is damaged: {damage}')
    return sha256


def check_content(path: Path, entry: Entry) -> None:
    """Check that a file opens as plain data and has all the weights of its entry, in the right shapes.

    Raises:
        CheckpointError: If it refers to code, lacks the entry's key, or is another variant.
    """
    content = load_file(path)
    weights = content.get(entry.key)
    if not isinstance(weights, dict):
        raise CheckpointError(
            f'{path} has no `{entry.key}`, which holds the weights of {entry.name}; it has the keys '
            f'{", ".join(map(str, list(content)[:8]))}'
        )
    if not entry.available:
        return
    backbone = build_backbone(entry.architecture, entry.arch, entry.options)
    try:
        report = fit_checkpoint(backbone, weights)[1]
    except CheckpointError as error:
        raise CheckpointError(f'{path} is not {entry.name}: {error}') from error
    # Files of another patch stride differ in the size of their position embedding alone.
    if report.resampled:
        raise CheckpointError(
            f'{path} is not {entry.name}: {", ".join(report.resampled)} would have to be '
            'interpolated, as for another patch stride or image size'
        )
    if not any(name.startswith(_HEADS[entry.task]) for name in report.dropped):
        raise CheckpointError(f'{path} is not {entry.name}: it has no head for {entry.task} beside the backbone')
