"""`tools/train.py` and `tools/test.py` on the real config with miniature data, from another folder."""

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmevm.apis.evaluate import main as run_test
from mmevm.apis.train import main as run_train
from mmevm.checkpoint import load_file

from ..runs import forget_runs
from .conftest import CONFIG
from .toy_runs import Toy

pytestmark = pytest.mark.openmmlab


def last_run(work: Path) -> tuple[list[dict], str]:
    """The scalars and the log of the last run in a work directory."""
    folder = max(work.glob('2*'), key=os.path.getmtime)
    scalars = (folder / 'vis_data/scalars.json').read_text().splitlines()
    return [json.loads(line) for line in scalars], next(folder.glob('*.log')).read_text()


def test_train_runs_the_config_and_evaluates_it(trained: Path) -> None:
    (loss, metrics), log = last_run(trained)
    assert np.isfinite(loss['loss']) and loss['loss'] == pytest.approx(loss['loss_cls'] + loss['loss_bbox'], rel=1e-3)
    assert loss['step'] == 2
    # A detector that found nothing has no metrics, only MMDetection's remark.
    assert 'coco/bbox_mAP' in metrics or 'The testing results of the whole dataset is empty' in log


def test_train_saves_what_opens_weights_only(trained: Path) -> None:
    checkpoint = load_file(trained / 'epoch_1.pth')
    assert checkpoint['meta']['iter'] == 2
    assert len(checkpoint['message_hub']['log_scalars']['train/loss'].data[0]) == 2
    assert sum(key.endswith('A_logs') for key in checkpoint['state_dict']) == 4


def test_train_resumes_at_the_saved_iteration(trained: Path, small_run: list[str]) -> None:
    forget_runs()
    options = [*small_run, 'train_cfg.max_epochs=2']
    assert run_train([str(CONFIG), '--work-dir', str(trained), '--resume', '--cfg-options', *options]) == 0
    scalars, log = last_run(trained)
    assert 'resumed epoch: 1, iter: 2' in log and scalars[0]['step'] == 4
    checkpoint = load_file(trained / 'epoch_2.pth')
    assert checkpoint['meta']['iter'] == 4
    assert {int(state['step']) for state in checkpoint['optimizer']['state'].values()} == {4}


def test_test_evaluates_draws_and_dumps(
    trained: Path, small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ['--work-dir', str(tmp_path), '--show-dir', 'drawn', '--out', 'out.pkl', '--tta']
    options = [*small_run, 'model.test_cfg.score_thr=0.001']
    assert run_test([str(CONFIG), str(trained / 'epoch_1.pth'), *flags, '--cfg-options', *options]) == 0
    metrics = json.loads(next(tmp_path.glob('*/*.json')).read_text())
    assert {'coco/bbox_mAP', 'coco/bbox_mAP_50'} <= set(metrics)
    results = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    image = Image.open(results[0]['img_path']).convert('RGB')
    assert (results[0]['pred_instances']['bboxes'] <= max(image.size)).all()
    drawn = Image.open(next(tmp_path.glob(f'*/drawn/{Path(results[0]["img_path"]).name}'))).convert('RGB')
    left_half = np.asarray(drawn.crop((0, 0, *image.size)), dtype=int)
    assert (np.abs(left_half - np.asarray(image, dtype=int)) > 64).any()


def test_test_does_not_run_code_from_a_checkpoint(toy: Toy) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, (f'touch {toy.folder}/ran',)

    toy.configure('test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict()')
    torch.save({'state_dict': {}, 'meta': Evil()}, 'evil.pth')
    assert run_test(['config.py', 'evil.pth']) == 2
    assert re.search(r'Refused to load .*evil\.pth: it asks for `posix\.system`', toy.capfd.readouterr().err)
    assert not os.path.exists('ran')


def test_train_does_not_execute_the_config_text_of_a_checkpoint(toy: Toy) -> None:
    toy.train(options='train_cfg.max_epochs=1')
    checkpoint = load_file('work/epoch_1.pth')
    checkpoint['meta']['config'] = checkpoint['meta']['cfg'] = f'open({str(toy.folder / "ran")!r}, "w")'
    torch.save(checkpoint, 'evil.pth')
    toy.train('--resume', 'evil.pth')
    assert not os.path.exists('ran')


def test_train_says_that_the_data_is_missing_before_a_model_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_train([str(CONFIG)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith('The data set is not there.') and len(lines) <= 12
    assert f'  missing: {tmp_path}/data/coco/annotations/instances_train2017.json' in lines
    assert '  python tools/make_mini_data.py --out data/mini' in lines
    assert not (tmp_path / 'work_dirs').exists()


@pytest.mark.parametrize(
    ('run', 'arguments', 'message'),
    [
        (run_train, ['no/such.py'], r'Config file not found: /.*/no/such\.py'),
        (run_train, [str(CONFIG).replace('evm_t', 'evm_tt')], r'Did you mean retinanet_evm_t\.py'),
        (run_test, [str(CONFIG), 'no.pth'], r'Checkpoint not found: /.*/no\.pth'),
        (run_test, [str(CONFIG), __file__], r'The data set is not there'),
    ],
    ids=['config', 'misspelt-config', 'checkpoint', 'data'],
)
def test_tools_say_what_is_not_found(
    run: Any,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--amp'], '--amp needs a GPU'),
        (['--launcher', 'pytorch'], 'the environment lacks RANK, WORLD_SIZE'),
        (['--resume', 'no.pth'], 'Checkpoint not found'),
    ],
    ids=['amp', 'launcher', 'resume'],
)
def test_train_refuses_flags_that_cannot_work(
    flags: list[str], message: str, mini_coco: Path, capsys: pytest.CaptureFixture
) -> None:
    if torch.cuda.is_available() and flags[0] != '--resume':
        pytest.skip('only refused on the CPU')
    assert run_train([str(CONFIG), *flags, '--cfg-options', f'data_root={mini_coco}']) == 2
    assert message in capsys.readouterr().err
