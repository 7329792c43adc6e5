"""Commands of setup.py that put ``.mim``, where MIM and MMEngine look for configs and metafiles, into installations.

A wheel contains copies. An editable installation contains signposts to this checkout next to its metadata, where MIM
looks for the package: an index that imports the checkout's metafiles, for each config a file that inherits it, and for
each tool a file that runs it.

Standard library and setuptools only: setup.py runs this file by its path, before mmevm is installed.
"""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ('configs', 'demo', 'tools')
INDEX = 'model-index.yml'
# setuptools collects data files in `<name>.data/data` of the wheel; two folders up is its top, which lands in
# site-packages.
SITE_PACKAGES = Path('../..')


def copy_mim_data(target: Path) -> None:
    """Copy configs, tools and the index below `target`, replacing an earlier build's."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(ROOT / INDEX, target)


def write_signposts(target: Path) -> list[tuple[str, list[str]]]:
    """Write the signposts below `target`.

    Returns:
        list[tuple[str, list[str]]]: Their paths, as setuptools' ``data_files``.
    """
    shutil.rmtree(target, ignore_errors=True)
    metafiles = sorted((ROOT / 'configs').glob('metafile*.yml'))
    contents = {INDEX: 'Import:\n' + ''.join(f'  - {str(path)!r}\n' for path in metafiles)}
    for path in (ROOT / 'configs').rglob('*.py'):
        contents[str(path.relative_to(ROOT))] = f'_base_ = {str(path)!r}\n'
    for path in [*(ROOT / 'tools').rglob('*.py'), *(ROOT / 'demo').glob('*_demo.py')]:
        contents[str(path.relative_to(ROOT))] = f"import runpy\n\nrunpy.run_path({str(path)!r}, run_name='__main__')\n"
    placed = []
    for name, content in sorted(contents.items()):
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        placed.append((str(SITE_PACKAGES / 'mmevm' / '.mim' / Path(name).parent), [str(file)]))
    return placed


class BuildPy(build_py):
    """Builds the package with its ``.mim``."""

    def run(self) -> None:
        """Copy ``.mim`` after the modules; an editable build has its own (see :class:`EditableWheel`)."""
        super().run()
        if not self.editable_mode:
            copy_mim_data(Path(self.build_lib) / 'mmevm' / '.mim')


class EditableWheel(editable_wheel):
    """Builds the wheel of an editable installation with signposts in ``.mim``."""

    def run(self) -> None:
        """Pass the signposts to setuptools, which puts data files into editable wheels, too."""
        self.distribution.data_files = write_signposts(ROOT / 'build' / 'mim')
        # setuptools (81 does) asks for `has_data`, which its Distribution calls `has_data_files`.
        self.distribution.has_data = self.distribution.has_data_files
        super().run()
