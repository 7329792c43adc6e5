"""`tools/analysis/scan_order.py` as a user runs it."""

from pathlib import Path

import pytest
from PIL import Image

from mmevm.cli.scan_order import main


def test_scan_order_says_what_the_token_sees(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'order.png'
    assert main(['--map', '4', '4', '--token', '2', '3', '--out', str(out)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    # ES2D: the last of its phase's four. SS2D: places 11 and 14, and as many from the end. Vim: the class token too.
    assert lines[1:4] == [
        'ES2D 4 of 16 tokens; through each route: 0, 0, 4, 0'.split(),
        'SS2D 16 of 16 tokens; through each route: 12, 15, 5, 2'.split(),
        'Vim 17 of 17 tokens; through each route: 13, 5'.split(),
    ]
    assert lines[4] == [str(out)] and Image.open(out).width == 1600


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--map', '4', '25'], 'must be at most 24 x 24'),
        (['--map', '4', '4', '--token', '4', '0'], 'must lie in the map of 4 x 4 cells'),
        (['--out', 'no/such/folder/x.png'], 'no/such/folder/x.png cannot be drawn'),
    ],
)
def test_scan_order_says_what_does_not_fit(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
