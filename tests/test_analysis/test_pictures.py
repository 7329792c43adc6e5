"""`mmevm.analysis.pictures`: order, size and colours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmevm.analysis.pictures import read_pictures, render_pictures


def _save(path: Path, color: tuple[int, int, int]) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new('RGB', (10, 7), color).save(path)


def test_read_pictures_gives_the_first_ones_normalised_and_square(tmp_path: Path) -> None:
    _save(tmp_path / 'b.png', (0, 0, 0))
    _save(tmp_path / 'a' / 'z.PNG', (255, 116, 0))
    _save(tmp_path / 'c.png', (9, 9, 9))
    (tmp_path / 'a.txt').write_text('no picture')
    first, second = read_pictures(tmp_path, 2, 32)
    assert first.shape == second.shape == (1, 3, 32, 32) and first.dtype == torch.float32
    # (255 - 123.675) / 58.395, (116 - 116.28) / 57.12, -103.53 / 57.375
    expected = torch.tensor([2.248909, -0.004902, -1.804444])
    torch.testing.assert_close(first[0].mean(dim=(1, 2)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second[0, :, 3, 4].numpy(), [-2.117904, -2.035714, -1.804444], rtol=1e-5)


def test_read_pictures_needs_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='must be a folder with pictures'):
        read_pictures(tmp_path / 'none', 2, 32)


def test_render_pictures_depends_on_the_seed_alone() -> None:
    few, more = list(render_pictures(1, 64, seed=3)), list(render_pictures(2, 64, seed=3))
    assert torch.equal(few[0], more[0]) and not torch.equal(more[0], more[1])
    assert not torch.equal(few[0], next(iter(render_pictures(1, 64, seed=4))))
