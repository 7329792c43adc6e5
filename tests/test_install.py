"""Installing mmevm: editable, as a wheel, with and without its extension, and where that does not compile."""

import functools
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mmevm.version import __version__

ROOT = Path(__file__).resolve().parent.parent
SCAN = """
import sys, torch, mmevm
from mmevm.ops import selective_scan
torch.manual_seed(0)
u, delta, A, B = torch.randn(2, 8, 21), torch.rand(2, 8, 21), -torch.rand(8, 4), torch.randn(2, 2, 4, 21)
expected = selective_scan(u, delta, A, B, B, backend='reference')
torch.testing.assert_close(selective_scan(u, delta, A, B, B, backend=sys.argv[1]), expected)
print(mmevm.__file__)
"""
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'huggingface_hub', 'safetensors'):
            raise ModuleNotFoundError(f'{name} is hidden by this test')
sys.meta_path.insert(0, Blocker())
"""


def run_python(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    """Runs Python with `arguments`; `variables` are added to the environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ('MMEVM_BUILD_EXT', 'PYTHONPATH', 'CXX')}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**kept, **variables}, capture_output=True, text=True, check=False)


def write_script(path: Path, text: str) -> Path:
    """Writes a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def source_tree(tmp_path) -> Path:
    """A copy of what a build reads, without anything built."""
    return copy_sources(tmp_path / 'source')


def copy_sources(tree: Path) -> Path:
    """Copies what a build reads to a new folder."""
    ignored = shutil.ignore_patterns('*.so', '__pycache__')
    for folder in ('mmevm', 'csrc', 'configs', 'demo', 'tools'):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md', 'model-index.yml'):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, tree)
    return tree


def pip_wheel(tree: Path, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Builds a wheel of a source tree into a folder as users do, with extra environment variables."""
    options = ['--no-build-isolation', '--no-deps', '-w', folder]
    return run_python('-m', 'pip', 'wheel', '-v', *options, tree, cwd=tree.parent, **variables)


@pytest.fixture
def build_wheel(source_tree, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Builds a wheel of `source_tree` into tmp_path / 'wheels' by the call that pip makes, without pip's seconds."""

    def build(**variables: str) -> subprocess.CompletedProcess:
        code = 'import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])'
        return run_python('-c', code, tmp_path / 'wheels', cwd=source_tree, **variables)

    return build


@pytest.fixture(scope='module')
def wheel(tmp_path_factory, extension) -> Path:
    """The wheel with the compiled extension; without optimisation, that takes half a minute."""
    folder = tmp_path_factory.mktemp('wheel')
    compiler = write_script(folder / 'c++', '#!/bin/bash\nexec c++ "${@/#-O3/-O0}"\n')
    tree = copy_sources(folder / 'source')
    result = pip_wheel(tree, folder, MMEVM_BUILD_EXT='1', FORCE_CUDA='0', CXX=str(compiler))
    assert result.returncode == 0, result.stdout + result.stderr
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel installed."""
    target = tmp_path_factory.mktemp('installed')
    result = run_python('-m', 'pip', 'install', '--no-deps', '--target', target, wheel, cwd=target)
    assert result.returncode == 0, result.stderr
    return target


def only_wheel(folder: Path) -> tuple[str, list[str]]:
    """Tag of the one wheel in a folder, and the names of its files."""
    (path,) = folder.glob('*.whl')
    with zipfile.ZipFile(path) as archive:
        return '-'.join(path.stem.split('-')[2:]), archive.namelist()


def test_wheel_serves_every_python_from_3_10(wheel):
    tag, names = only_wheel(wheel.parent)
    assert tag.startswith('cp310-abi3-linux')
    assert 'mmevm/_C.abi3.so' in names
    packages = [path.relative_to(ROOT) for path in (ROOT / 'mmevm').rglob('*.py')]
    configs = [Path('mmevm/.mim') / path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py')]
    assert {str(path) for path in packages + configs} <= set(names)
    assert {'mmevm/.mim/model-index.yml', 'mmevm/.mim/configs/metafile_detection.yml'} <= set(names)
    assert {name.split('/')[0].split('-')[0] for name in names} == {'mmevm'}
    assert any(name.endswith('licenses/LICENSE') for name in names)


def test_installed_wheel_scans_from_another_folder(installed, tmp_path):
    result = run_python('-c', SCAN, 'compiled', cwd=tmp_path, PYTHONPATH=str(installed))
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.split()[-1]).parent == installed / 'mmevm'


def test_extension_links_neither_python_nor_an_openmp_of_its_own(installed):
    readelf = shutil.which('readelf')
    if readelf is None:
        pytest.skip('binutils are not installed')
    command = [readelf, '-d', installed / 'mmevm' / '_C.abi3.so']
    section = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    needed = [line.split('[')[1].rstrip(']') for line in section.splitlines() if '(NEEDED)' in line]
    unwanted = ('libpython', 'libtorch_python', 'libgomp', 'libomp', 'libiomp')
    assert 'libtorch_cpu.so' in needed
    assert not [name for name in needed if name.startswith(unwanted)]


@pytest.mark.openmmlab
def test_editable_install_is_this_checkout(extension, tmp_path):
    result = run_python('-c', SCAN, 'compiled', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.split()[-1]) == ROOT / 'mmevm' / '__init__.py'


@pytest.mark.openmmlab
def test_import_needs_neither_the_extension_nor_mmcv_and_its_dependents_nor_what_downloads(source_tree, tmp_path):
    code = BLOCKER + SCAN + 'from mmevm.ops.extension import LOAD_ERROR; print(LOAD_ERROR)'
    result = run_python('-c', code, 'auto', cwd=tmp_path, PYTHONPATH=str(source_tree))
    assert result.returncode == 0, result.stderr
    assert str(source_tree) in result.stdout
    assert 'not built' in result.stdout


def test_wheel_without_extension_on_request(build_wheel, source_tree, tmp_path):
    (source_tree / 'mmevm' / '_C.abi3.so').write_bytes(b'left by an editable install')
    result = build_wheel(MMEVM_BUILD_EXT='0')
    assert result.returncode == 0, result.stderr
    tag, names = only_wheel(tmp_path / 'wheels')
    assert tag == 'py3-none-any'
    assert not [name for name in names if name.endswith('.so')]


def test_required_extension_fails_loudly_with_a_broken_compiler(build_wheel, tmp_path):
    result = build_wheel(MMEVM_BUILD_EXT='1', FORCE_CUDA='0', CXX='/bin/false')
    assert result.returncode != 0
    assert '/bin/false' in result.stdout + result.stderr
    assert not list(tmp_path.glob('wheels/*.whl'))


def test_optional_extension_falls_back_to_pure_python_with_a_broken_compiler(source_tree, tmp_path):
    result = pip_wheel(source_tree, tmp_path / 'wheels', FORCE_CUDA='0', CXX='/bin/false')
    assert result.returncode == 0, result.stderr
    assert 'WARNING: mmevm._C does not compile, installing pure Python' in result.stdout + result.stderr
    tag, names = only_wheel(tmp_path / 'wheels')
    assert tag == 'py3-none-any'
    assert 'mmevm/__init__.py' in names


@pytest.mark.parametrize(
    'torch, messages',
    [
        ('raise ImportError("no torch here")', ['no torch here', '--no-build-isolation']),
        ('__version__ = "2.9.1+cpu"', ['need torch 2.10 or newer, this is torch 2.9.1+cpu', 'upgrade torch']),
    ],
    ids=['no torch', 'older torch'],
)
@pytest.mark.parametrize('mode', ['auto', '1'])
def test_build_without_a_torch_for_the_extension(build_wheel, tmp_path, mode, torch, messages):
    (tmp_path / 'shadow').mkdir()
    (tmp_path / 'shadow' / 'torch.py').write_text(torch)
    result = build_wheel(MMEVM_BUILD_EXT=mode, PYTHONPATH=str(tmp_path / 'shadow'))
    output = result.stdout + result.stderr
    assert (result.returncode == 0) == (mode == 'auto')
    assert all(message in output for message in messages)
    if mode == 'auto':
        assert only_wheel(tmp_path / 'wheels')[0] == 'py3-none-any'


@pytest.fixture(scope='module')
def older_setuptools(tmp_path_factory) -> Callable[[str], Path]:
    """Fetches a release of setuptools, 1 MB, into a folder of its own."""

    @functools.cache
    def fetch(version: str) -> Path:
        folder = tmp_path_factory.mktemp('setuptools')
        options = ['--quiet', '--no-deps', '--target', folder, f'setuptools=={version}']
        result = run_python('-m', 'pip', 'install', *options, cwd=folder)
        assert result.returncode == 0, result.stderr
        return folder

    return fetch


# The last two differ in how pyproject.toml may state the license; 65.5 is what a venv of Python 3.11 starts with.
@pytest.mark.parametrize('version', ['65.5.0', '76.1.0', '77.0.3'])
def test_every_kind_of_build_with_older_setuptools(older_setuptools, source_tree, tmp_path, version):
    code = (
        'import setuptools; from setuptools import build_meta; print(setuptools.__version__)\n'
        'for build in (build_meta.build_sdist, build_meta.build_wheel, build_meta.build_editable): print(build("out"))'
    )
    result = run_python(
        '-W', 'ignore', '-c', code, cwd=source_tree, MMEVM_BUILD_EXT='0', PYTHONPATH=str(older_setuptools(version))
    )
    assert result.returncode == 0, result.stderr
    used, *_, editable = result.stdout.split()
    name = f'mmevm-{__version__}'
    assert (used, editable) == (version, f'{name}-0.editable-py3-none-any.whl')
    assert (source_tree / 'out' / f'{name}.tar.gz').is_file()
    with zipfile.ZipFile(source_tree / 'out' / f'{name}-py3-none-any.whl') as archive:
        metadata = archive.read(f'{name}.dist-info/METADATA').decode()
        assert {'mmevm/__init__.py', 'mmevm/.mim/model-index.yml'} <= set(archive.namelist())
    assert 'License: Apache-2.0' in metadata.splitlines()
    assert 'License-File: LICENSE' in metadata.splitlines()


def test_build_without_bdist_wheel_says_what_to_install(older_setuptools, source_tree, tmp_path):
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'venv'], check=True)
    environment = {'MMEVM_BUILD_EXT': '0', 'PYTHONPATH': str(older_setuptools('65.5.0'))}
    command = [tmp_path / 'venv/bin/python', 'setup.py', '-q', 'bdist_wheel']
    result = subprocess.run(command, cwd=source_tree, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert 'setuptools 65.5.0 cannot build wheels by itself; install wheel (`pip install wheel`)' in result.stderr


def test_unknown_build_mode_names_the_choices(build_wheel):
    result = build_wheel(MMEVM_BUILD_EXT='yes')
    assert result.returncode != 0
    assert "MMEVM_BUILD_EXT must be auto, 0 or 1, got 'yes'" in result.stdout + result.stderr


def test_forced_cuda_without_a_fitting_toolkit_says_so(build_wheel, source_tree, tmp_path):
    (source_tree / 'csrc' / 'cuda').mkdir(exist_ok=True)
    (source_tree / 'csrc' / 'cuda' / 'empty.cu').write_text('')
    write_script(tmp_path / 'toolkit/bin/nvcc', '#!/bin/sh\necho release 7.5\n')
    result = build_wheel(MMEVM_BUILD_EXT='1', FORCE_CUDA='1', CUDA_HOME=str(tmp_path / 'toolkit'))
    assert result.returncode != 0
    assert 'FORCE_CUDA=1 asks for the CUDA operators, but' in result.stdout + result.stderr


# Compiles and links nothing: an "object" is the name of its source, and a "library" its objects' contents.
FAKE_COMPILER = """#!/bin/bash
[[ " $* " == *' -o '* ]] || exec c++ "$@"
sources=()
while (($#)); do
  case $1 in
    -o) output=$2 && shift ;;
    *.cpp | *.cu) sources+=("$1") ;;
    *.o) objects+=("$1") ;;
  esac
  shift
done
if ((${#sources[@]})); then echo "${sources[@]##*/csrc/}" >"$output"; else cat "${objects[@]}" >"$output"; fi
"""


def write_nvcc(folder: Path, compile: str) -> Path:
    """Writes an nvcc of torch's release that compiles by a line of bash."""
    import torch

    if torch.version.cuda is None:
        pytest.skip('torch is built without CUDA, so that nvcc is not tried')
    return write_script(
        folder / 'toolkit' / 'bin' / 'nvcc',
        '#!/bin/bash\ncase "$*" in\n'
        f'*--version*) echo "Cuda compilation tools, release {torch.version.cuda}, V0" ;;\n'
        f'*--dryrun*) echo "#$ TOP={folder}/toolkit" ;;\n'
        f'*) {compile} ;;\nesac\n',
    )


@pytest.mark.parametrize('architectures', ['7.5 8.6;9.0+PTX', None])
def test_nvcc_takes_every_list_of_architectures(build_wheel, tmp_path, architectures):
    compiler = write_script(tmp_path / 'c++', FAKE_COMPILER)
    # It divides macros at commas, as the real one does.
    refuse = 'for a in "$@"; do case $a in -D*,[0-9]*) echo "macro names must be identifiers" >&2; exit 1;; esac; done'
    nvcc = write_nvcc(tmp_path, f'{refuse}; exec {compiler} "$@"')
    given = {'TORCH_CUDA_ARCH_LIST': architectures} if architectures else {}
    result = build_wheel(
        MMEVM_BUILD_EXT='1', FORCE_CUDA='1', CUDA_HOME=str(nvcc.parents[1]), CXX=str(compiler), **given
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob('wheels/*.whl')
    with zipfile.ZipFile(wheel) as archive:
        assert 'cuda/visual_scan.cpp' in archive.read('mmevm/_C_cuda.abi3.so').decode()


def test_without_a_working_nvcc_the_cpu_kernels_are_built_all_the_same(build_wheel, tmp_path):
    nvcc = write_nvcc(tmp_path, 'echo "error: unsupported GNU version" >&2; exit 1')
    compiler = write_script(tmp_path / 'c++', FAKE_COMPILER)
    result = build_wheel(CUDA_HOME=str(nvcc.parent.parent), TORCH_CUDA_ARCH_LIST='9.0', CXX=str(compiler))
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert 'the CUDA operators do not compile and are left out, Triton serves GPUs' in output
    (wheel,) = tmp_path.glob('wheels/*.whl')
    with zipfile.ZipFile(wheel) as archive:
        linked = archive.read('mmevm/_C.abi3.so').decode().split()
    sources = [path for folder in ('core', 'torch') for path in ROOT.glob(f'csrc/{folder}/*.cpp')]
    assert sorted(linked) == sorted(str(path.relative_to(ROOT / 'csrc')) for path in sources)
