"""Where mmevm's own configs, tools and metafiles are."""

from pathlib import Path


def find_root() -> Path:
    """Return the folder with ``model-index.yml`` and ``configs``: the checkout's root or, when installed, ``.mim``."""
    package = Path(__file__).parent
    return package.parent if (package.parent / 'model-index.yml').is_file() else package / '.mim'
