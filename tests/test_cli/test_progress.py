"""`mmevm.cli.progress`: passes everything on, and draws a bar on terminals alone."""

import pytest

from mmevm.cli import progress


@pytest.mark.parametrize('terminal', [False, True])
def test_shown_draws_a_bar_on_a_terminal_alone(
    terminal: bool, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.sys.stdout, 'isatty', lambda: terminal, raising=False)
    assert list(progress.shown('abc', 'three letters')) == ['a', 'b', 'c']
    title, *rest = capsys.readouterr().out.splitlines()
    assert title == 'three letters' and any('3/3' in line for line in rest) == terminal
