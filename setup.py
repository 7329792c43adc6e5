"""Builds mmevm and its extensions, the compiled operators: ``mmevm._C`` for the CPU, ``mmevm._C_cuda`` for GPUs.

The operators register themselves through LibTorch's stable ABI, and the extensions use no Python API: one file,
``mmevm/_C.abi3.so``, serves every torch from 2.10 and every Python from 3.10 on; ``mmevm/_C_cuda.abi3.so`` serves those
whose CUDA has the same major version. torch must be importable while they are built: install with
``pip install --no-build-isolation``.

Environment variables:
    MMEVM_BUILD_EXT: ``auto`` (default) builds the extensions and, where that fails, warns and installs pure Python;
        ``1`` makes the failure an error; ``0`` leaves them out.
    FORCE_CUDA: ``1`` makes a missing CUDA toolkit an error; ``0`` leaves the CUDA operators out. By default they are
        built when a toolkit of torch's CUDA release is found; no GPU needs to be visible.
    TORCH_CUDA_ARCH_LIST: GPU architectures to compile for. By default those of the visible GPUs or, without any, all
        of ARCHITECTURES below that this CUDA knows, and PTX of the newest, which later GPUs compile when they load it.
    MAX_JOBS: How many files are compiled at a time.
"""

import os
import runpy
import sys
from pathlib import Path

import setuptools
from setuptools import Distribution, Extension, setup
from setuptools.errors import ModuleError

ROOT = Path(__file__).resolve().parent
ARCHITECTURES = {
    '7.5': (11, 0),
    '8.0': (11, 0),
    '8.6': (11, 1),
    '8.9': (11, 8),
    '9.0': (11, 8),
    '10.0': (12, 8),
    '12.0': (12, 8),
}
"""GPU architectures, and the release of CUDA that first compiles for each."""
PY_LIMITED_API = 'cp310'
CUDA = runpy.run_path(str(ROOT / 'mmevm' / '_cuda_toolkit.py'))
TORCH = runpy.run_path(str(ROOT / 'mmevm' / 'ops' / 'torch_release.py'))


def warn(message: str) -> None:
    """Prints a warning where pip shows it with -v."""
    print(f'mmevm: WARNING: {message}', file=sys.stderr, flush=True)


def build_mode() -> str:
    """MMEVM_BUILD_EXT, checked."""
    mode = os.environ.get('MMEVM_BUILD_EXT', 'auto')
    if mode not in ('auto', '0', '1'):
        raise ValueError(f'MMEVM_BUILD_EXT must be auto, 0 or 1, got {mode!r}')
    return mode


def require_bdist_wheel() -> None:
    """Stops with advice where wheels cannot be built: before 70.1, setuptools leaves that to the package wheel."""
    try:
        Distribution().get_command_class('bdist_wheel')
    except ModuleError:
        problem = f'setuptools {setuptools.__version__} cannot build wheels by itself'
        advice = 'install wheel (`pip install wheel`), then run the same command again'
        raise SystemExit(f'mmevm: {problem}; {advice}') from None


def source_files(*patterns: str) -> list[str]:
    """Files below csrc/ that match, relative to this folder as setuptools wants them."""
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in (ROOT / 'csrc').glob(pattern))


def use_cuda() -> bool:
    """Whether to compile csrc/cuda; if so, points torch at the toolkit."""
    import torch

    force = os.environ.get('FORCE_CUDA')
    if force == '0' or not source_files('cuda/*.cu'):
        return False
    try:
        toolkit = CUDA['matching_cuda_toolkit'](torch.version.cuda)
    except RuntimeError as problem:
        if force == '1':
            raise RuntimeError(f'FORCE_CUDA=1 asks for the CUDA operators, but {problem}') from None
        warn(f'the CUDA operators are left out: {problem}')
        return False
    os.environ['CUDA_HOME'] = str(toolkit.home)
    if torch.cuda.is_available():
        visible = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
        names = ['.'.join(map(str, capability)) for capability in sorted(visible)]
    else:
        # Either may be the older one, and torch refuses a GPU that it does not know.
        oldest = min(toolkit.version, tuple(int(part) for part in torch.version.cuda.split('.')[:2]))
        names = [name for name, release in ARCHITECTURES.items() if oldest >= release]
    os.environ.setdefault('TORCH_CUDA_ARCH_LIST', f'{";".join(names)}+PTX')
    return True


def make_extensions(cuda: bool) -> list[Extension]:
    """Describe ``mmevm._C``, the CPU's operators, ``mmevm._C_cuda``, and ``mmevm._onnxruntime``, the same kernels for
    ONNX Runtime; each loads without the others.
    """
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    common = {
        'depends': [*source_files('**/*.h', '**/*.cuh', 'core/*.cpp'), 'mmevm/ops/schemas.inc'],
        'include_dirs': [str(ROOT / 'mmevm' / 'ops')],
        'py_limited_api': True,
    }
    flags = ['-std=c++17', '-O3']
    cxx_flags = [*flags, '-g0', '-Wall', '-fvisibility=hidden']
    macros: list[tuple[str, str | None]] = [('TORCH_TARGET_VERSION', TORCH['ABI_TARGET'])]
    sources = source_files('core/*.cpp', 'torch/*.cpp')
    extensions = [
        CppExtension('mmevm._C', sources, extra_compile_args={'cxx': cxx_flags}, define_macros=macros, **common),
        Extension(
            'mmevm._onnxruntime',
            source_files('onnxruntime/*.cpp'),  # and the objects of csrc/core, which mmevm._C is built of
            extra_compile_args={'cxx': cxx_flags},
            language='c++',
            **common,
        ),
    ]
    if cuda:
        # The extension names them, so that a GPU without code for it is left to Triton.
        architectures = os.environ['TORCH_CUDA_ARCH_LIST'].replace(';', ' ').split()
        # Not by commas, at which nvcc would divide the macro.
        macros = [*macros, ('USE_CUDA', None), ('MMEVM_CUDA_ARCHITECTURES', '/'.join(architectures))]
        sources = source_files('core/checks.cpp', 'cuda/*.cpp', 'cuda/*.cu')
        compile_args = {'cxx': cxx_flags, 'nvcc': flags}
        extensions.append(
            CUDAExtension('mmevm._C_cuda', sources, extra_compile_args=compile_args, define_macros=macros, **common)
        )
    return extensions


def make_build_ext(required: bool) -> type:
    """Return a build_ext command that, unless the extensions are required, continues without what does not compile."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildExt(BuildExtension):
        def copy_extensions_to_source(self) -> None:
            # Written over, a file would change under the processes that have loaded it; and one that was not built now
            # would not fit the Python code.
            for path in (ROOT / 'mmevm').glob('_*.abi3.so'):
                path.unlink()
            super().copy_extensions_to_source()

        def build_extensions(self) -> None:
            self.parallel = None  # one extension takes objects of another; ninja uses all cores for each
            core = self.compiler.object_filenames(source_files('core/*.cpp'), output_dir=self.build_temp)
            for extension in self.extensions:
                if extension.name == 'mmevm._onnxruntime':
                    extension.extra_objects = core
            try:
                super().build_extensions()
            except Exception as error:
                cpu = [extension for extension in self.extensions if extension.name != 'mmevm._C_cuda']
                if required or cpu == self.extensions:
                    raise
                advice = 'if nvcc refuses the C++ compiler, install one that it supports and name it in CXX'
                problem = f'{type(error).__name__}: {error}; {advice}'
                warn(f'the CUDA operators do not compile and are left out, Triton serves GPUs: {problem}')
                self.extensions = cpu
                super().build_extensions()

        def run(self) -> None:
            in_tree = bool(self.inplace)
            for path in Path(self.build_lib, 'mmevm').glob('_*.abi3.so'):
                path.unlink()  # what an earlier build has left would be packed
            try:
                super().run()
            except Exception as error:
                if required:
                    raise
                warn(f'mmevm._C does not compile, installing pure Python ({type(error).__name__}: {error})')
                self.extensions = self.distribution.ext_modules = []
                wheel = self.distribution.get_command_obj('bdist_wheel', create=False)
                if wheel is not None:  # has made up its mind about the wheel's name before the build
                    wheel.root_is_pure = True
                if in_tree:
                    self.copy_extensions_to_source()

    return BuildExt


def extension_arguments() -> dict:
    """Return the arguments of ``setup`` that concern the extensions."""
    mode = build_mode()
    if mode == '0':
        return {}
    try:
        import torch

        problem = TORCH['torch_problem'](torch.__version__)
        advice = 'upgrade torch, then install mmevm again'
        if problem is None:
            extensions = make_extensions(use_cuda())  # before torch's build tools look for CUDA_HOME
            return {'ext_modules': extensions, 'cmdclass': {'build_ext': make_build_ext(required=mode == '1')}}
    except ImportError as error:
        problem, advice = str(error), 'install torch, then mmevm with --no-build-isolation'
    if mode == '1':
        raise RuntimeError(f'MMEVM_BUILD_EXT=1 needs torch 2.10 or newer to build mmevm._C ({problem}); {advice}')
    warn(f'mmevm._C is left out, installing pure Python: {problem}; {advice}')
    return {}


if {'bdist_wheel', 'dist_info', 'editable_wheel'} & set(sys.argv):
    require_bdist_wheel()
mim_data = runpy.run_path(str(ROOT / 'mmevm' / '_mim_data.py'))
arguments = extension_arguments()
arguments.setdefault('cmdclass', {}).update(build_py=mim_data['BuildPy'], editable_wheel=mim_data['EditableWheel'])
setup(license='Apache-2.0', options={'bdist_wheel': {'py_limited_api': PY_LIMITED_API}}, **arguments)
