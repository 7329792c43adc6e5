"""Builds a virtual environment with a pinned stack, mmcv's operators and mmevm; ``make env`` calls it.

    python3 tools/setup_env.py onedl .venv
    python3 tools/setup_env.py openmmlab .venv-openmmlab

Standard library only, since it runs before anything is installed. Every step leaves a stamp of what it was made from
(requirement files, sources, versions), and is done again only when that changed or when it was interrupted.

Environment variables: FORCE_CUDA (0 or 1: operators without or with CUDA, whatever the machine has), MAX_JOBS (files
compiled at a time), MMEVM_BUILD_EXT (see setup.py; 1 here unless set), TORCH_CUDA_ARCH_LIST (GPU architectures to
compile mmevm for; those of the visible GPUs or, without any, 9.0 and its PTX), XDG_CACHE_HOME (where compiled wheels of
mmcv are kept, below mmevm/wheels).
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements'
EXTENSION = ROOT / 'mmevm' / '_C.abi3.so'
STACKS = ('onedl', 'openmmlab')
BUILD_EXT = os.environ.get('MMEVM_BUILD_EXT', '1')
OLDEST_PYTHON = (3, 11)
JOBS = int(os.environ.get('MAX_JOBS') or len(os.sched_getaffinity(0)))
MMCV_CORE_MINUTES = 20
LONE_ARCHITECTURE = '9.0+PTX'
TAIL = 25


class SetupError(Exception):
    """A step failed; the message says how, and what to do."""


class Step(NamedTuple):
    """One step of the set-up.

    Attributes:
        name (str): Name of its stamp and log.
        title (str): What it does and how long it may take.
        inputs (Callable[[], list[str | Path]]): Texts and files that the result depends on.
        action (Callable[[bool], None]): Does it; the argument says whether an earlier run was interrupted.
        advice (str): What to do when it fails.
        in_place (Callable[[], bool]): Whether a result outside the environment is still there.
    """

    name: str
    title: str
    inputs: Callable[[], list]
    action: Callable[[bool], None]
    advice: str
    in_place: Callable[[], bool] = lambda: True


@contextlib.contextmanager
def locked(path: Path, wait_for: str) -> Iterator[None]:
    """Holds an exclusive lock; it goes away with the process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w') as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'      waiting for {wait_for}', flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def digest(inputs: list) -> str:
    """A hash of texts and of the contents of files."""
    total = hashlib.sha256()
    for item in inputs:
        content = item.read_bytes() if isinstance(item, Path) else str(item).encode()
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def pins(file: str) -> list[str]:
    """The requirements of a file, without comments."""
    lines = (line.split('#')[0].strip() for line in (REQUIREMENTS / file).read_text().splitlines())
    return [line for line in lines if line]


def check_machine() -> None:
    """Names what the set-up cannot do without, before it starts."""
    version = '.'.join(map(str, sys.version_info[:2]))
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(f'Python 3.11 or newer is needed, this is {version}: make PYTHON=/path/to/python3.11 ...')
    if not (Path(sysconfig.get_paths()['include']) / 'Python.h').is_file():
        raise SetupError(f'the headers of Python {version} are missing (Python.h): install python{version}-dev')
    compiler = os.environ.get('CXX', 'g++').split()[0]
    if shutil.which(compiler) is None:
        raise SetupError(f'there is no C++ compiler ({compiler}): install g++ 9 or newer, or set CXX')


class Environment:
    """A virtual environment under construction."""

    def __init__(self, stack: str, venv: Path) -> None:
        self.stack, self.venv = stack, venv
        self.python = venv / 'bin' / 'python'
        self.stamps = venv / 'mmevm-setup'
        self.logs = ROOT / 'build' / 'setup-logs' / venv.name
        self.log = self.logs / 'venv.log'
        self.mmcv = next(pin for pin in pins(f'{stack}.txt') if re.match(r'(onedl-)?mmcv==', pin))

    def run(self, *command: object, **variables: str) -> None:
        """Runs a command into the step's log, and says now and then that it is alive."""
        environment = {**os.environ, 'PIP_DISABLE_PIP_VERSION_CHECK': '1', 'PIP_NO_INPUT': '1', **variables}
        environment.pop('PYTHONPATH', None)
        with self.log.open('a') as log:
            print('$', *command, file=log, flush=True)
            words = [str(part) for part in command]
            process = subprocess.Popen(words, stdout=log, stderr=log, cwd=ROOT, env=environment)
            start = time.monotonic()
            try:
                while True:
                    try:
                        process.wait(timeout=60)
                        break
                    except subprocess.TimeoutExpired:
                        self.report_progress(time.monotonic() - start)
            finally:
                process.terminate()  # nothing, once it has ended
                process.wait()
        if process.returncode:
            raise SetupError(f'`{" ".join(words[:6])} ...` ended with exit status {process.returncode}')

    def report_progress(self, seconds: float) -> None:
        """Prints the time and, from ninja's last line in the log, how many files are compiled."""
        counts = re.findall(r'^\s*(\[\d+/\d+\])', self.log.read_text(errors='replace'), flags=re.MULTILINE)
        print(f'      {seconds / 60:.0f} min {counts[-1] + " files compiled" if counts else ""}'.rstrip(), flush=True)

    def pip(self, *arguments: object, **variables: str) -> None:
        """Runs the environment's pip."""
        self.run(self.python, '-m', 'pip', *arguments, **variables)

    def ask(self, code: str) -> str:
        """What a few lines print in the environment's Python; raises SetupError with the last line of a failure."""
        command = [self.python, '-W', 'ignore', '-c', code]
        result = subprocess.run(command, capture_output=True, text=True, cwd=self.venv, check=False)
        if result.returncode:
            with self.log.open('a') as log:
                log.write(result.stderr)
            raise SetupError((result.stderr.strip().splitlines() or [f'exit status {result.returncode}'])[-1])
        return result.stdout.strip()

    def torch_release(self) -> tuple[str, str]:
        """Version of the installed torch and of its CUDA ('' without), read without the seconds its import takes."""
        code = (
            'import importlib.util, runpy; file = importlib.util.find_spec("torch").origin;'
            'release = runpy.run_path(file.replace("__init__", "version"));'
            'print(release["__version__"]); print(release["cuda"] or "")'
        )
        version, _, cuda = self.ask(code).partition('\n')
        return version, cuda

    def create(self, interrupted: bool) -> None:
        """Makes the virtual environment, or keeps a working one of the same Python that is there already."""
        if self.python.exists() and not interrupted:
            with contextlib.suppress(SetupError):
                if self.ask('import sys, pip; print(*sys.version_info[:2])') == '{} {}'.format(*sys.version_info):
                    return
        self.run(sys.executable, '-m', 'venv', '--clear', self.venv)

    def install_torch(self, interrupted: bool) -> None:
        """Installs torch and the tools that compile against it."""
        again = ['--force-reinstall'] if interrupted else []
        self.pip('install', *again, '-r', REQUIREMENTS / 'build.txt', '-r', REQUIREMENTS / 'torch.txt')

    def install_libraries(self, interrupted: bool) -> None:
        """Installs the stack's libraries apart from mmcv, what they import, and the tools for tests."""
        again = ['--force-reinstall'] if interrupted else []
        exact = ['--no-deps', '--no-build-isolation']
        self.pip('install', *again, *exact, '-r', REQUIREMENTS / 'common.txt')
        self.pip('install', '-r', REQUIREMENTS / 'dev.txt', '-c', REQUIREMENTS / 'torch.txt')
        libraries = [pin for pin in pins(f'{self.stack}.txt') if pin != self.mmcv]
        self.pip('install', *again, *exact, *libraries)

    def cuda_for_mmcv(self, torch_cuda: str) -> tuple[Path | None, str]:
        """The CUDA toolkit to compile mmcv's operators with, or None; and the reason."""
        force = os.environ.get('FORCE_CUDA')
        if force == '0':
            return None, 'FORCE_CUDA=0'
        if not torch_cuda:
            return None, 'this torch has no CUDA'
        if force != '1' and self.ask('import torch; print(torch.cuda.is_available())') != 'True':
            return None, 'no GPU is visible'
        find = runpy.run_path(str(ROOT / 'mmevm' / '_cuda_toolkit.py'))['matching_cuda_toolkit']
        try:
            toolkit = find(torch_cuda)
        except RuntimeError as problem:
            if force == '1':
                raise SetupError(f'FORCE_CUDA=1, but {problem}') from None
            return None, str(problem)
        return toolkit.home, f'with the toolkit {toolkit.home}'

    def install_mmcv(self, _: bool) -> None:
        """Installs mmcv from the wheel in the user's cache, compiling it first where that is missing or broken."""
        torch_version, torch_cuda = self.torch_release()
        cuda_home, reason = self.cuda_for_mmcv(torch_cuda)
        print(f'      operators for {"CPU and CUDA" if cuda_home else "CPU alone"} ({reason})', flush=True)
        distribution, torch = self.mmcv.replace('==', '-'), torch_version.split('+')[0]
        name = f'{distribution}-torch{torch}-cp{sys.version_info[0]}{sys.version_info[1]}'
        if cuda_home:
            name += f'-cu{torch_cuda.replace(".", "")}'
        cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mmevm' / 'wheels'
        folder = cache / name
        with locked(cache / f'{name}.lock', 'another process that compiles the same operators'):
            if any(folder.glob('*.whl')):
                try:
                    return self.install_mmcv_wheel(folder)
                except SetupError as error:
                    print(f'      the wheel in {folder} does not work here ({error}); compiling it again', flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            self.compile_mmcv(folder, cuda_home)
            self.install_mmcv_wheel(folder)

    def compile_mmcv(self, folder: Path, cuda_home: Path | None) -> None:
        """Compiles mmcv into a wheel in `folder`, which appears only when it is complete."""
        variables = {'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(JOBS), 'FORCE_CUDA': '1' if cuda_home else '0'}
        # mmcv takes a visible GPU for a wish to compile for it, whatever FORCE_CUDA says.
        variables |= {'CUDA_HOME': str(cuda_home)} if cuda_home else {'CUDA_VISIBLE_DEVICES': ''}
        building = folder.with_name(f'.{folder.name}')
        shutil.rmtree(building, ignore_errors=True)
        # pip's own cache knows a wheel by its source alone, and would bring back one made for another torch.
        options = ['--no-cache-dir', '--no-build-isolation', '--no-deps', '--no-binary', ':all:']
        self.pip('wheel', '-v', *options, '-w', building, self.mmcv, **variables)
        building.rename(folder)

    def install_mmcv_wheel(self, folder: Path) -> None:
        """Installs the wheel and checks that its operators load with the torch that is there."""
        self.pip('install', '--no-deps', '--force-reinstall', next(folder.glob('*.whl')))
        self.ask('import mmcv.ops')

    def extension_inputs(self) -> list:
        """What mmevm._C depends on."""
        files = sorted(path for path in (ROOT / 'csrc').rglob('*') if path.is_file())
        names = ('MMEVM_BUILD_EXT', 'FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST', 'CXX', 'CUDA_HOME')
        variables = [f'{name}={os.environ.get(name)}' for name in names]
        return [*files, ROOT / 'setup.py', ROOT / 'mmevm' / '_cuda_toolkit.py', *self.torch_release(), *variables]

    def architectures(self) -> dict[str, str]:
        """TORCH_CUDA_ARCH_LIST where no GPU says it: one architecture and PTX, to see that the CUDA kernels compile."""
        if 'TORCH_CUDA_ARCH_LIST' in os.environ:
            return {}
        visible = self.ask('import torch; print(torch.cuda.is_available())') == 'True'
        return {} if visible else {'TORCH_CUDA_ARCH_LIST': LONE_ARCHITECTURE}

    def install_mmevm(self, _: bool) -> None:
        """Compiles the extension into the source tree, where all environments use it, and installs mmevm editable."""
        stamp = ROOT / 'build' / 'extension.stamp'
        key = digest(self.extension_inputs())
        if BUILD_EXT != '0' and not (EXTENSION.is_file() and stamp.is_file() and stamp.read_text() == key):
            stamp.unlink(missing_ok=True)
            command = [self.python, 'setup.py', 'build_ext', '--inplace']
            self.run(*command, MMEVM_BUILD_EXT=BUILD_EXT, MAX_JOBS=str(JOBS), **self.architectures())
            stamp.write_text(key)
        self.pip('install', '--no-build-isolation', '--no-deps', '-e', ROOT, MMEVM_BUILD_EXT='0')
        if BUILD_EXT == '1':
            self.ask('from mmevm.ops.extension import LOAD_ERROR; raise SystemExit(LOAD_ERROR)')

    def check(self, _: bool) -> None:
        """Imports everything and prints the versions."""
        code = (
            'import torch, mmengine, mmcv.ops, mmdet.apis, mmseg.apis, mmpretrain.apis, mmevm;'
            'print(*(f"{m.__name__} {m.__version__}" for m in '
            '(torch, mmengine, mmcv, mmdet, mmseg, mmpretrain, mmevm)), sep=", ")'
        )
        print(f'      {self.ask(code).splitlines()[-1]}', flush=True)

    def steps(self) -> list[Step]:
        """All steps, in order; each is also redone when one before it was."""
        minutes = max(1, round(MMCV_CORE_MINUTES / JOBS))
        requirement_files = [REQUIREMENTS / name for name in ('common.txt', 'dev.txt', f'{self.stack}.txt')]
        network = 'check the network and the free disk space (8 GB), then run the same command again'
        return [
            Step(
                'venv',
                f'create {self.venv.name} (seconds)',
                lambda: [str(ROOT), sys.version_info[:2]],
                self.create,
                'on Debian and Ubuntu install python3-venv; or name another Python: make PYTHON=/path/to/python3 ...',
            ),
            Step(
                'torch',
                'install torch and build tools (about 3 minutes, 5 GB)',
                lambda: [REQUIREMENTS / 'build.txt', REQUIREMENTS / 'torch.txt'],
                self.install_torch,
                network,
            ),
            Step(
                'libraries',
                f'install the {self.stack} libraries (about 1 minute)',
                lambda: requirement_files,
                self.install_libraries,
                network,
            ),
            Step(
                'mmcv',
                f'install mmcv with its operators (compiled once, about {minutes} minutes on {JOBS} cores)',
                lambda: [self.mmcv, os.environ.get('FORCE_CUDA')],
                self.install_mmcv,
                'read the compiler messages in the log; with too little memory set MAX_JOBS=1, without a matching CUDA '
                'toolkit FORCE_CUDA=0',
            ),
            Step(
                'mmevm',
                'compile and install mmevm (about 2 minutes when its C++ or CUDA sources changed)',
                lambda: [*self.extension_inputs(), ROOT / 'pyproject.toml', ROOT / 'mmevm' / 'version.py'],
                self.install_mmevm,
                'read the compiler messages in the log; MMEVM_BUILD_EXT=0 goes on in pure Python',
                lambda: BUILD_EXT != '1' or EXTENSION.is_file(),
            ),
            Step(
                'check',
                'import all libraries (about 20 seconds)',
                lambda: [],
                self.check,
                f'remove {self.venv.name} and run the same command again',
            ),
        ]

    def build(self) -> None:
        """Does the steps that are not done yet."""
        self.logs.mkdir(parents=True, exist_ok=True)
        steps, key = self.steps(), ''
        for number, step in enumerate(steps, start=1):
            key = digest([key, *step.inputs()])
            stamp = self.stamps / step.name
            if stamp.is_file() and stamp.read_text() == key and step.in_place():
                continue
            print(f'[{number}/{len(steps)}] {step.title}', flush=True)
            self.log = self.logs / f'{step.name}.log'
            self.perform(step, stamp, key)
        print(f'{self.venv.name} is ready', flush=True)

    def perform(self, step: Step, stamp: Path, key: str) -> None:
        """Does one step; the stamp is empty from its start to its success."""
        interrupted = stamp.is_file() and not stamp.read_text()
        self.log.write_text('')
        if self.stamps.parent.is_dir():
            self.stamps.mkdir(exist_ok=True)
            stamp.write_text('')
        try:
            step.action(interrupted)
        except SetupError as error:
            lines = self.log.read_text(errors='replace').splitlines()[-TAIL:]
            tail = '\n'.join(f'    {line}' for line in lines)
            raise SetupError(
                f'this step failed: {step.title}\n{tail}\n  Cause:      {error}\n  Whole log:  {self.log}\n'
                f'  What to do: {step.advice}'
            ) from None
        self.stamps.mkdir(exist_ok=True)
        stamp.write_text(key)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('stack', choices=STACKS, help='the maintained forks, or the packages of OpenMMLab')
    parser.add_argument('venv', type=Path, help='folder of the virtual environment')
    arguments = parser.parse_args()
    try:
        check_machine()
        with locked(ROOT / 'build' / 'setup.lock', 'another set-up in this checkout'):
            Environment(arguments.stack, arguments.venv.resolve()).build()
    except SetupError as error:
        print(f'set-up of {arguments.venv}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; the same command goes on from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
