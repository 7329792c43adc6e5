"""Other processes: two at once, full disks, caches that cannot be written. `tools/zoo.py` as users run it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmevm.zoo import ENTRIES
from mmevm.zoo.__main__ import main

from .conftest import EVM
from .server import Server

ROOT = Path(__file__).resolve().parents[2]
FILE = ENTRIES[EVM].file
PATH = ENTRIES[EVM].url.removeprefix('https://huggingface.co')


@pytest.fixture
def mirror(server: Server, evm_file: bytes, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as the hub's mirror, which processes find by ``HF_ENDPOINT``."""
    server.files[PATH] = evm_file
    monkeypatch.setenv('HF_ENDPOINT', server.url)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    return server


def test_two_processes_download_once_and_show_the_progress(
    mirror: Server,
    hub: str,
    cache: Path,
    evm_file: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    # The log goes to what an earlier test has captured.
    monkeypatch.setattr('mmevm.zoo.cache.print_log', lambda *_, **__: None)
    mirror.faults[PATH] = ['slow', 'slow']
    # tqdm, which huggingface_hub draws with, is silent where there is no terminal, unless it is told otherwise.
    environment = {**os.environ, 'TQDM_POSITION': '-1'}
    tool = [sys.executable, str(ROOT / 'tools/zoo.py'), 'download', EVM]
    with subprocess.Popen(tool, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as other:
        while not mirror.gets():
            assert other.poll() is None
            time.sleep(0.01)
        assert main(['download', EVM]) == 0
        output = other.communicate(timeout=100)[0]
    assert other.returncode == 0 and f'{cache / FILE}\n' in output and f'{FILE}: 100%' in output, output
    shown = capsys.readouterr()
    assert f'{cache / FILE}\n' in shown.out and '100%' not in shown.out + shown.err
    assert len(mirror.gets()) == 1 and (cache / FILE).read_bytes() == evm_file


_MOUNT = """
mount -t tmpfs -o size=4m tmpfs full
mount -t tmpfs -o ro tmpfs sealed
mount --bind filled filled
mount -o remount,bind,ro filled
exec "$@"
"""
_DOWNLOAD = f"""
import contextlib, io, json, os
from mmevm.zoo.__main__ import main
results = {{}}
for disk in ('full', 'sealed', 'filled'):
    os.environ['MMEVM_CACHE'] = disk
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(['download', '{EVM}'])
    files = sorted(os.listdir(f'{{disk}}/zoo')) if os.path.isdir(f'{{disk}}/zoo') else []
    results[disk] = [status, out.getvalue(), err.getvalue(), files]
print(json.dumps(results))
"""


@pytest.mark.skipif(os.name != 'posix' or shutil.which('unshare') is None, reason='needs mounts of its own')
def test_disks_that_are_full_or_cannot_be_written(mirror: Server, tmp_path: Path, evm_file: bytes) -> None:
    own = ['unshare', '--mount', '--map-root-user', 'sh', '-ec']
    if subprocess.run([*own, 'mount -t tmpfs tmpfs /mnt'], capture_output=True, check=False).returncode:
        pytest.skip('this machine does not let a process have mounts of its own')
    for disk in ('full', 'sealed', 'filled/zoo'):
        (tmp_path / disk).mkdir(parents=True)
    (tmp_path / 'filled/zoo' / FILE).write_bytes(evm_file)
    done = subprocess.run(
        [*own, _MOUNT, 'sh', sys.executable, '-c', _DOWNLOAD],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])

    status, _, error, files = results['full']
    assert status == 2 and files == [f'{FILE}.lock']  # nothing is left that would keep the disk full
    assert f'No room for {FILE} of about 26.2 MB in {tmp_path}/full/zoo: No space left on device' in error

    status, _, error, files = results['sealed']
    assert status == 2 and files == []
    assert 'Read-only file system' in error and 'MMEVM_CACHE to another folder' in error

    status, output, _, files = results['filled']
    assert status == 0 and files == [FILE] and f'{tmp_path}/filled/zoo/{FILE}' in output
    assert len(mirror.gets()) == 1  # for the full disk alone
