from pathlib import Path

import pytest

from mmevm.files import file_hash
from mmevm.zoo import ENTRIES
from mmevm.zoo.__main__ import main

from .conftest import EVM, OTHER
from .server import Server

FILE = ENTRIES[EVM].file


def test_list_names_every_entry_and_its_state(
    cache: Path, hub: str, site: str, evm_file: bytes, capsys: pytest.CaptureFixture
) -> None:
    cache.mkdir(parents=True)
    (cache / FILE).write_bytes(evm_file)
    assert main(['list']) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines.keys() == ENTRIES.keys()
    assert lines[EVM].endswith('in the cache') and '76.5' in lines[EVM]
    assert lines['efficient_vmamba_base'].endswith('to be downloaded')
    assert lines[OTHER].endswith('no MambaVision backbone yet')


def test_show_says_whose_figure_it_is_and_that_no_hash_is_published(capsys: pytest.CaptureFixture) -> None:
    assert main(['show', EVM]) == 0
    shown = capsys.readouterr().out
    assert "76.5, ImageNet-1k top-1, % (its authors'; not measured here)" in shown
    assert 'none published; the first verified download records it' in shown
    assert ENTRIES[EVM].url in shown


def test_show_suggests_names(capsys: pytest.CaptureFixture) -> None:
    assert main(['show', 'efficientvmamba_tiny']) == 2
    assert 'efficient_vmamba_tiny' in capsys.readouterr().err


def test_download_copies_to_a_folder(hub: str, tmp_path: Path, evm_file: bytes, capsys: pytest.CaptureFixture) -> None:
    assert main(['download', EVM, '--to', str(tmp_path / 'here')]) == 0
    assert [path.name for path in (tmp_path / 'here').iterdir()] == [FILE]
    assert (tmp_path / 'here' / FILE).read_bytes() == evm_file
    assert f'{tmp_path}/here/{FILE}\nSHA-256 {file_hash(tmp_path / "here" / FILE)}' in capsys.readouterr().out


def test_verify_says_what_a_file_is(
    server: Server, hub: str, tmp_path: Path, evm_file: bytes, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / FILE
    file.write_bytes(evm_file)
    assert main(['verify', str(file)]) == 0
    shown = capsys.readouterr().out
    assert file_hash(file) in shown and f'It is {EVM}, but no hash of it is known' in shown
    assert main(['download', EVM]) == 0 and main(['verify', str(file)]) == 0
    assert f'It is {EVM}, by its hash (the record in the cache)' in capsys.readouterr().out


@pytest.mark.parametrize(('length', 'message'), [(1000, 'Cannot read'), (None, 'is damaged')])
def test_verify_refuses_a_damaged_file(
    length: int | None, message: str, tmp_path: Path, evm_file: bytes, capsys: pytest.CaptureFixture
) -> None:
    place = len(evm_file) * 3 // 8
    flipped = evm_file[:place] + bytes([evm_file[place] ^ 1]) + evm_file[place + 1 :]
    (tmp_path / FILE).write_bytes(evm_file[:length] if length else flipped)
    assert main(['verify', str(tmp_path / FILE)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_convert_takes_names_and_verify_holds_the_result_to_its_hash(
    suffix: str, hub: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / f'tiny{suffix}'
    assert main(['convert', EVM, str(target)]) == 0
    assert f'source: {ENTRIES[EVM].url}' in capsys.readouterr().out
    assert main(['verify', str(target)]) == 0
    assert 'architecture: EfficientVMamba tiny' in capsys.readouterr().out
    content = target.read_bytes()
    place = len(content) * 3 // 8
    target.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert main(['verify', str(target)]) == 2
    assert 'tensors_sha256 differs' in capsys.readouterr().err


@pytest.mark.parametrize('command', [['verify', 'none.pth'], ['convert', 'none.pth', 'out.pth']])
def test_missing_files_are_named(command: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(command) == 2
    assert 'Checkpoint not found' in capsys.readouterr().err
