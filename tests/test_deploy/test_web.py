"""demo/web in headless Chromium, against the predictor in Python."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmevm.deploy import load
from mmevm.deploy.export import main
from tests.test_deploy import toy
from tests.test_deploy.browser import CHROMIUM, Page, open_page

ROOT = Path(__file__).resolve().parents[2]
# The folder dist of the npm package onnxruntime-web.
ORT_WEB = os.environ.get('MMEVM_ONNXRUNTIME_WEB', '')
pytestmark = [
    pytest.mark.openmmlab,
    pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium'),
    pytest.mark.skipif(not ORT_WEB, reason='MMEVM_ONNXRUNTIME_WEB names no folder of onnxruntime-web'),
]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the page, onnxruntime-web below /ort/, and the test's files below /files/."""

    def __init__(self, *args: object, files: Path) -> None:
        self.roots = {'ort': Path(ORT_WEB), 'files': files}
        super().__init__(*args, directory=str(ROOT / 'demo/web'))

    def translate_path(self, path: str) -> str:
        first, _, rest = path.partition('?')[0].lstrip('/').partition('/')
        return str(self.roots[first] / rest) if first in self.roots else super().translate_path(path)

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope='module')
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp('files')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, files=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open_page(tmp_path_factory.mktemp('profile')) as browser:
        address = f'http://127.0.0.1:{server.server_port}/index.html?ort=/ort/'
        browser.call('Page.navigate', url=address)
        browser.evaluate(
            'new Promise(done => { const wait = () => window.mmevm ? done() : setTimeout(wait, 50); wait(); })'
        )
        browser.folder = folder
        yield browser
    server.shutdown()


def show(page: Page, model: Path, image: Path) -> str:
    """Load both files into the page, and return what it reports."""
    for name, path in (('Model', model), ('Image', image)):
        (page.folder / path.name).write_bytes(path.read_bytes())
        page.evaluate(
            f"fetch('/files/{path.name}').then(r => r.blob()).then(b => mmevm.load{name}(new File([b], 'x')))"
        )
    return page.evaluate("document.getElementById('status').textContent")


def test_boxes_equal_those_of_python(page: Page, tmp_path: Path) -> None:
    config, checkpoint = toy.write(toy.mask_rcnn(), tmp_path)
    model, image = tmp_path / 'model.onnx', tmp_path / 'image.png'
    assert main([str(config), str(checkpoint), '--out', str(model), '--no-verify']) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (9, 15, 3), np.uint8)
    # As large as the config's scale, so that nothing is resized, which every library does in a way of its own.
    cv2.imwrite(str(image), cv2.resize(pixels, (150, 95), interpolation=cv2.INTER_CUBIC))
    report = show(page, model, image)
    expected = load(model)(image)
    assert report.startswith(f'{len(expected.boxes)} objects (')
    found = page.evaluate('mmevm.state.found')
    assert len(found) > 3
    assert [item['label'] for item in found] == expected.labels.tolist()
    np.testing.assert_allclose([item['box'] for item in found], expected.boxes, atol=0.1)
    np.testing.assert_allclose([item['score'] for item in found], expected.scores, atol=1e-3)
    # Something was drawn over the image.
    drawn = page.evaluate("document.getElementById('canvas').toDataURL().length")
    assert drawn > 1000


def test_a_foreign_file_is_refused(page: Page, tmp_path: Path) -> None:
    (page.folder / 'foreign.onnx').write_bytes(b'\x08\x0a')
    page.evaluate(
        "fetch('/files/foreign.onnx').then(r => r.blob()).then(b => mmevm.loadModel(new File([b], 'x')))"
        '.catch(error => { document.title = error.message; })'
    )
    assert page.evaluate('document.title') == 'The file was not written by tools/export.py of mmevm.'
