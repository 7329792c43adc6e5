import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from mmevm.backbones import EfficientVMamba
from mmevm.checkpoint import CheckpointError
from mmevm.zoo import FetchError, fetch

from .conftest import EVM, OTHER, move_entry, pack
from .server import Server


def names(folder: Path) -> list[str]:
    """The files of a cache, apart from locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != '.lock')


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that fetching logs."""
    lines: list[str] = []
    for module in ('fetching', 'download', 'cache'):
        monkeypatch.setattr(f'mmevm.zoo.{module}.print_log', lambda line, **_: lines.append(line))
    return lines


def test_fetch_downloads_from_the_hub_once_and_records_the_hash(server: Server, hub: str, evm_file: bytes) -> None:
    path = fetch(EVM)
    assert path.read_bytes() == evm_file
    assert json.loads((path.parent / f'{path.name}.json').read_text())['sha256'] == sha256(evm_file).hexdigest()
    assert fetch(f'mmevm://{EVM}') == path
    assert len(server.gets()) == 1 and names(path.parent) == [path.name, f'{path.name}.json']


def test_fetch_downloads_from_ordinary_addresses(server: Server, site: str, other_file: bytes) -> None:
    assert fetch(OTHER).read_bytes() == other_file


def test_fetch_follows_redirections_of_both(
    server: Server, hub: str, site: str, evm_file: bytes, other_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, content in ((hub, evm_file), (site, other_file)):
        server.files[f'/cdn{path}'] = content
        server.moved[path] = f'/cdn{path}'
    assert fetch(EVM).read_bytes() == evm_file
    assert fetch(OTHER).read_bytes() == other_file


def test_fetch_reads_slow_servers(server: Server, site: str, other_file: bytes) -> None:
    server.faults[site] = ['slow']
    assert fetch(OTHER).read_bytes() == other_file


@pytest.mark.parametrize('fault', ['drop', 'reset'])
@pytest.mark.parametrize('place', ['hub', 'site'])
def test_fetch_goes_on_after_a_broken_connection(
    fault: str, place: str, server: Server, waits: list, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(place)
    server.faults[path] = [fault, fault]
    content = server.files[path]
    assert fetch({'hub': EVM, 'site': OTHER}[place]).read_bytes() == content
    starts = [int(wanted[6:-1]) if wanted else 0 for wanted in server.gets()]
    assert starts[0] == 0 and 0 < starts[-1] < len(content) and starts == sorted(starts)
    assert waits


def test_fetch_goes_on_in_a_later_call(server: Server, site: str, waits: list, cache: Path, other_file: bytes) -> None:
    cache.mkdir(parents=True)
    (cache / 'other.pth.incomplete').write_bytes(other_file[:1000])
    assert fetch(OTHER).read_bytes() == other_file
    assert server.gets() == ['bytes=1000-']


@pytest.mark.parametrize('size', [1000, 20_000_000], ids=['shorter', 'longer'])
def test_fetch_starts_again_where_the_incomplete_file_is_of_another(
    size: int, server: Server, site: str, waits: list, cache: Path, other_file: bytes
) -> None:
    cache.mkdir(parents=True)
    (cache / 'other.pth.incomplete').write_bytes(b'x' * size)
    assert fetch(OTHER).read_bytes() == other_file
    assert server.gets() == [f'bytes={size}-', None]


def test_fetch_tries_again_with_growing_waits_when_the_server_is_overloaded(
    server: Server, site: str, waits: list, other_file: bytes
) -> None:
    server.faults[site] = [503, 500]
    assert fetch(OTHER).read_bytes() == other_file
    assert waits == [1, 2]


def test_fetch_gives_up_after_four_attempts_and_says_what_to_do(server: Server, site: str, waits: list) -> None:
    server.faults[site] = [500] * 9
    with pytest.raises(FetchError, match=r'in 4 attempts: .*500(.|\n)*put the file at\n  .*other\.pth'):
        fetch(OTHER)
    assert waits == [1, 2, 4] and len(server.gets()) == 4


@pytest.mark.parametrize('status', [404, 403, 410])
def test_fetch_does_not_repeat_what_is_final(status: int, server: Server, site: str, waits: list) -> None:
    server.faults[site] = [status]
    with pytest.raises(FetchError, match=rf'answers {status}: the file was moved, removed or closed'):
        fetch(OTHER)
    assert waits == [] and len(server.gets()) == 1


def test_fetch_says_that_the_hub_lacks_a_file(server: Server, hub: str, waits: list) -> None:
    del server.files[hub]
    with pytest.raises(FetchError, match='answers 404'):
        fetch(EVM)


def test_fetch_refuses_and_keeps_aside_what_has_another_hash(
    server: Server, hub: str, cache: Path, evm_file: bytes
) -> None:
    server.hashes[hub] = 'f' * 64
    with pytest.raises(CheckpointError, match=r'expected f{64} \(published by the hub\)') as caught:
        fetch(EVM)
    aside = f'efficient_vmamba_tiny.ckpt.damaged-{sha256(evm_file).hexdigest()[:8]}'
    assert names(cache) == [aside] and aside in str(caught.value)
    assert len(server.gets()) == 2


def test_fetch_holds_a_file_to_the_authors_hash(
    server: Server, site: str, monkeypatch: pytest.MonkeyPatch, other_file: bytes
) -> None:
    move_entry(monkeypatch, OTHER, server.url + site, sha256='0' * 64)
    with pytest.raises(CheckpointError, match=r'expected 0{64} \(published by its authors\)'):
        fetch(OTHER)
    move_entry(monkeypatch, OTHER, server.url + site, sha256=sha256(other_file).hexdigest())
    assert fetch(OTHER).read_bytes() == other_file


def test_fetch_holds_later_downloads_to_the_first(server: Server, site: str, other_file: bytes) -> None:
    path = fetch(OTHER)
    path.unlink()
    server.files[site] = pack({'model': {'layers.0.weight': torch.zeros(3)}})
    with pytest.raises(CheckpointError, match=r'recorded in .*other\.pth\.json(.|\n)*delete .*other\.pth\.json'):
        fetch(OTHER)
    assert not path.exists()
    (path.parent / 'other.pth.json').unlink()
    assert fetch(OTHER).read_bytes() == server.files[site]


@pytest.mark.parametrize('length', [20_000_000, 27_000_000])
def test_fetch_refuses_a_file_of_the_wrong_length(length: int, server: Server, hub: str, evm_file: bytes) -> None:
    server.files[hub] = evm_file[:length].ljust(length, b'\0')
    with pytest.raises(CheckpointError, match=rf'has {length} bytes, expected about 26200000'):
        fetch(EVM)


def flip(content: bytes) -> bytes:
    """The same with one bit of a tensor changed."""
    place = len(content) * 3 // 8
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_fetch_notices_a_changed_bit_in_the_first_download(server: Server, site: str, other_file: bytes) -> None:
    server.files[site] = flip(other_file)
    with pytest.raises(CheckpointError, match=r'is damaged: .*(checksum|CRC)'):
        fetch(OTHER)


@pytest.mark.parametrize('harm', [flip, lambda content: content[:-100]], ids=['altered', 'cut off'])
def test_fetch_puts_a_damaged_file_aside_and_fetches_it_again(
    harm: Callable[[bytes], bytes], server: Server, site: str, other_file: bytes, log: list
) -> None:
    path = fetch(OTHER)
    path.write_bytes(harm(other_file))
    assert fetch(OTHER).read_bytes() == other_file
    aside = path.with_name(f'{path.name}.damaged-{sha256(harm(other_file)).hexdigest()[:8]}')
    assert aside.read_bytes() == harm(other_file)
    assert f'kept aside as {aside}' in log[-1] and len(server.gets()) == 2


def test_fetch_refuses_another_variant(server: Server, hub: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files[hub] = pack({'state_dict': EfficientVMamba('small').state_dict()})
    move_entry(monkeypatch, EVM, 'https://huggingface.co' + hub, size=None)
    with pytest.raises(CheckpointError, match=r"is not efficient_vmamba_tiny: (.|\n)*it is the variant 'small'"):
        fetch(EVM)
    assert len(server.gets()) == 1 and not (cache / 'efficient_vmamba_tiny.ckpt').exists()


def test_fetch_refuses_what_has_no_weights_under_the_key(server: Server, site: str) -> None:
    server.files[site] = pack({'state_dict': {}})
    with pytest.raises(CheckpointError, match='has no `model`, .*it has the keys state_dict'):
        fetch(OTHER)


@pytest.mark.parametrize('variable', ['MMEVM_OFFLINE', 'HF_HUB_OFFLINE'])
def test_fetch_offline_uses_the_cache_or_says_what_to_fetch(
    variable: str, server: Server, site: str, cache: Path, other_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, '1')
    with pytest.raises(
        FetchError, match=rf'switched off(.|\n)*{server.url}{site}(.|\n)*put the file at\n  {cache}/other'
    ):
        fetch(OTHER)
    (cache / 'other.pth').write_bytes(other_file)
    assert fetch(OTHER).read_bytes() == other_file
    assert server.requests == [] and (cache / 'other.pth.json').is_file()


def test_fetch_offline_still_refuses_a_damaged_file(
    server: Server, site: str, other_file: bytes, monkeypatch: pytest.MonkeyPatch, log: list
) -> None:
    path = fetch(OTHER)
    path.write_bytes(other_file[:-1])
    monkeypatch.setenv('MMEVM_OFFLINE', '1')
    with pytest.raises(FetchError, match='switched off'):
        fetch(OTHER)
    assert not path.exists() and 'kept aside' in log[-1]


def test_fetch_names_the_package_that_downloads_need(
    hub: str, cache: Path, monkeypatch: pytest.MonkeyPatch, evm_file: bytes
) -> None:
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    monkeypatch.setitem(sys.modules, 'huggingface_hub.errors', None)
    with pytest.raises(FetchError, match=r"pip install -U 'huggingface_hub>=2.4'(.|\n)*put the file at"):
        fetch(EVM)
    (cache / 'efficient_vmamba_tiny.ckpt').write_bytes(evm_file)
    assert fetch(EVM).read_bytes() == evm_file


def test_fetch_suggests_names() -> None:
    with pytest.raises(ValueError, match='did you mean efficient_vmamba_tiny'):
        fetch('efficientvmamba_tiny')
