"""The inferencers of both toolboxes with SAR configs and checkpoints, and all that docs/deployment.md shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope

from sar_mm.engine.safe_checkpoints import safe_checkpoints

ROOT = Path(__file__).parents[2]
CLASSIFICATION = 'resnet18_1xb64-300iter_digits-lt'
SEGMENTATION = 'fcn_unet_1xb16-400iter_digit-scenes-64x64'
SEMI = 'resnet18-fixmatch_1xb20-600iter_digits-40labels'


@pytest.fixture
def stock_of(run_tool, quickstart, tmp_path, monkeypatch):
    """The stock checkpoint of a quickstart run."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', DefaultScope._instance_dict.copy())  # inferencers set one

    def convert(name):
        out = tmp_path / f'{name}.pth'
        trust = [] if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint') else ['--trust']
        run_tool(ROOT / 'tools/model_converters/to_stock.py', quickstart(name).checkpoint, out, *trust)
        return str(out)

    return convert


@pytest.mark.parametrize('as_path', [True, False], ids=['path', 'Config'])
def test_classification_inferencer__predicts_what_the_stock_model_does(as_path, quickstart, stock_of):
    from mmpretrain import ImageClassificationInferencer, get_model

    run, weights = quickstart(CLASSIFICATION), stock_of(CLASSIFICATION)
    images = [str(image) for image in run.images[::90]]
    model = get_model(run.stock, weights)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose(model._config.test_dataloader.dataset.pipeline)
    with torch.no_grad():
        expected = [model.test_step(pseudo_collate([pipeline(dict(img_path=image))]))[0] for image in images]
    assert len({tuple(sample.pred_score.tolist()) for sample in expected}) == len(images) > 3
    configs = [path if as_path else Config.fromfile(path) for path in (run.stock, run.sar)]
    inferencers = [ImageClassificationInferencer(config, weights) for config in configs]
    with safe_checkpoints():
        inferencers += [ImageClassificationInferencer(config, str(run.checkpoint)) for config in configs]
    for inferencer in inferencers:
        results = inferencer(images)
        for result, other in zip(results, expected):
            assert np.array_equal(result['pred_scores'], other.pred_score.numpy())
            assert result['pred_label'] == other.pred_label.item()
            assert result['pred_class'] == str(result['pred_label'])  # digits: their names come from the checkpoint


@pytest.mark.slow
@pytest.mark.parametrize('as_path', [True, False], ids=['path', 'Config'])
def test_segmentation_inferencer__predicts_what_the_stock_model_does(as_path, quickstart, stock_of, tmp_path):
    from mmseg.apis import MMSegInferencer, inference_model, init_model
    from PIL import Image

    run, weights = quickstart(SEGMENTATION), stock_of(SEGMENTATION)
    images = [str(image) for image in run.images[:3]]
    # mmseg picks colours by itself unless the checkpoint has them, which that of a training run has.
    palette = torch.load(weights, weights_only=True)['meta']['dataset_meta']['palette']
    expected = inference_model(init_model(run.stock, weights, device='cpu'), images)
    configs = [path if as_path else Config.fromfile(path) for path in (run.stock, run.sar)]
    inferencers = [MMSegInferencer(config, weights, device='cpu') for config in configs]
    with safe_checkpoints():
        inferencers += [MMSegInferencer(config, str(run.checkpoint), device='cpu') for config in configs]
    for number, inferencer in enumerate(inferencers):
        out = tmp_path / f'out{number}'
        results = inferencer(images, out_dir=str(out), return_vis=True)
        for index, sample in enumerate(expected):
            labels = sample.pred_sem_seg.data[0].numpy()
            assert np.array_equal(results['predictions'][index], labels)
            assert np.array_equal(np.array(Image.open(out / 'pred' / f'{index:08}_pred.png')), labels)
            assert results['visualization'][index].shape == (*labels.shape, 3)
            assert (out / 'vis' / Path(images[index]).name).is_file()
        assert list(map(tuple, inferencer.visualizer.dataset_meta['palette'])) == list(map(tuple, palette))
        assert inferencer.visualizer.dataset_meta['classes'][-1] == 'background'


@pytest.mark.slow
def test_classification_inferencer__semi_supervised_model_predicts_as_its_teacher(quickstart, stock_of, tmp_path):
    from mmpretrain import ImageClassificationInferencer

    run, weights = quickstart(SEMI), stock_of(SEMI)
    plain = tmp_path / 'plain.py'
    plain.write_text(f'_base_ = {run.stock!r}\nmodel = dict(_delete_=True, **_base_.model.classifier)')
    images = [str(image) for image in run.images[::90]]
    expected = ImageClassificationInferencer(str(plain), weights)(images)
    with safe_checkpoints():
        inferencer = ImageClassificationInferencer(run.sar, str(run.checkpoint))
    for result, other in zip(inferencer(images), expected):
        assert np.array_equal(result['pred_scores'], other['pred_scores'])


@pytest.mark.slow
def test_deployment_page__its_commands_run(quickstart, tmp_path):
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package, reason='the page exports to ONNX and runs the result')
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, iteration in ((CLASSIFICATION, 300), (SEGMENTATION, 400)):
        checkpoint = tmp_path / f'work_dirs/demo/sar_{name}/seed0/iter_{iteration}.pth'
        checkpoint.parent.mkdir(parents=True)
        shutil.copy(quickstart(name).checkpoint, checkpoint)
    (tmp_path / 'data').symlink_to(quickstart(CLASSIFICATION).folder / 'data')

    page = (ROOT / 'docs/deployment.md').read_text(encoding='utf-8')
    blocks = re.findall(r'```(bash|python)\n(.*?)```', page, flags=re.DOTALL)
    commands = ['set -e\n' + ''.join(text for kind, text in blocks if kind == 'bash')]
    commands = [['bash', '-c', command] for command in commands]
    commands += [[sys.executable, '-c', text] for kind, text in blocks if kind == 'python']
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='', PATH=path)
    pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed = []
    for command in commands:
        result = subprocess.run(command, cwd=tmp_path, env=environment, text=True, timeout=500, **pipe)
        assert result.returncode == 0, result.stdout[-3000:]
        printed.append(result.stdout.strip().splitlines()[-1:])
    assert len(commands) == 5
    # Of the same image, the example of ONNX and that of the inferencer, behind its progress bar, print the same class.
    assert printed[2][0] in list('0123456789') and printed[3][0].endswith(printed[2][0])
    assert (tmp_path / 'work_dirs/onnx/cls.onnx').is_file()
    assert len(list((tmp_path / 'work_dirs/inferred').glob('*/*.png'))) == 2
