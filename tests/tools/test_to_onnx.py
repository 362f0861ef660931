"""Export to ONNX, from the command line to the output of onnxruntime."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

TOOLS = Path(__file__).parents[2] / 'tools' / 'model_converters'
CLASSIFICATION = 'resnet18_1xb64-300iter_digits-lt'
SEGMENTATION = 'fcn_unet_1xb16-400iter_digit-scenes-64x64'
SEMI = 'resnet18-fixmatch_1xb20-600iter_digits-40labels'
SIZES = {CLASSIFICATION: (16, 16), SEGMENTATION: (32, 48), SEMI: (16, 16)}
SWIN = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='SwinTransformer',
        arch=dict(embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 1, 2, 2]),
        img_size=64,
        window_size=2,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='SARLinearClsHead', num_classes=5, in_channels=64),
)
"""
TUPLE_HEAD = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=8, base_channels=8, out_indices=(0, 3)),
    neck=dict(type='GlobalAveragePooling'),
)
"""


@pytest.fixture
def tool(run_tool):
    """Run a converter with a command line; return what it prints."""
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package)

    return lambda name, *arguments, code=0: run_tool(TOOLS / f'{name}.py', *arguments, code=code)


def build(path, weights=None):
    config = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
    if weights is not None:
        model.load_state_dict(torch.load(weights, map_location='cpu', weights_only=False)['state_dict'], strict=True)
    return model.eval()


@pytest.fixture
def save(tmp_path):
    """Save the weights of the model of a config that is given as text."""

    def save(text):
        (tmp_path / 'config.py').write_text(text)
        torch.manual_seed(0)
        torch.save(build(tmp_path / 'config.py').state_dict(), tmp_path / 'weights.pth')
        return tmp_path / 'config.py', tmp_path / 'weights.pth', tmp_path / 'sub' / 'out.onnx'

    return save


def run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return torch.from_numpy(session.run(['logits'], {'input': images.numpy()})[0])


@pytest.mark.parametrize(
    'name', [CLASSIFICATION, *(pytest.param(name, marks=pytest.mark.slow) for name in (SEGMENTATION, SEMI))]
)
@pytest.mark.parametrize('is_stock', [True, False], ids=['stock', 'sar'])
def test_to_onnx__same_output_in_onnxruntime(name, is_stock, tool, quickstart, tmp_path):
    import onnx

    run = quickstart(name)
    config, checkpoint = run.sar, run.checkpoint
    expected_of = build(config, checkpoint)
    if is_stock:
        config, checkpoint = run.stock, tmp_path / 'stock.pth'
        keep = ['--part', 'teacher'] if name == SEMI else []
        tool('to_stock', run.checkpoint, checkpoint, *keep)
        if name == SEMI:
            expected_of = expected_of.teacher.module
            config = tmp_path / 'plain.py'
            config.write_text(f'_base_ = {run.stock!r}\nmodel = dict(_delete_=True, **_base_.model.classifier)')
    out = tmp_path / 'model.onnx'
    printed = tool('to_onnx', config, checkpoint, out, '--shape', *SIZES[name])
    assert f'{out} takes images (N, 3, {SIZES[name][0]}, {SIZES[name][1]})' in printed

    graph = onnx.load(out).graph
    assert not any('anchor' in weight.name for weight in graph.initializer)
    for count in (1, 3):
        images = torch.randn(count, 3, *SIZES[name])
        logits = run_onnx(out, images)
        with torch.no_grad():
            predicted = getattr(expected_of, 'predicting_part', expected_of).predict(images)
        if name == SEGMENTATION:
            expected = torch.stack([sample.seg_logits.data for sample in predicted])
            labels = torch.stack([sample.pred_sem_seg.data[0] for sample in predicted])
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        else:
            expected = torch.stack([sample.pred_score for sample in predicted])
            labels = torch.cat([sample.pred_label for sample in predicted])
            torch.testing.assert_close(logits.softmax(dim=1), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(logits.argmax(dim=1), labels)


@pytest.mark.slow
def test_to_onnx__wrong_for_other_batch_sizes_is_found(tool, save):
    config, weights, out = save(SWIN)  # it computes the batch size from the number of windows, which becomes a constant
    printed = tool('to_onnx', config, weights, out, '--shape', 64, 64, code=2)
    assert 'fix the batch size with --batch N' in printed and not out.exists()
    assert 'takes images (1, 3, 64, 64)' in tool('to_onnx', config, weights, out, '--shape', 64, 64, '--batch', 1)
    images = torch.randn(1, 3, 64, 64)
    model = build(config)
    model.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(run_onnx(out, images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('text', 'shape', 'message'),
    [
        (SWIN, (24, 24), 'error: the model does not take an input of (2, 3, 24, 24): The input shape '),
        (TUPLE_HEAD, (16, 16), 'only a model with one tensor of logits can be exported; this gives a tuple'),
        (SWIN, (0, 24), '--shape and --batch are to be positive, but are [0, 24] and 0'),
    ],
)
def test_to_onnx__models_and_sizes_that_do_not_go(text, shape, message, tool, save):
    config, weights, out = save(text)
    assert message in tool('to_onnx', config, weights, out, '--shape', *shape, code=2)
    assert not out.exists()


def test_to_onnx__wrong_arguments(tool, save, tmp_path):
    config, weights, out = save(TUPLE_HEAD)
    shape = ('--shape', 16, 16)
    assert 'required: --shape' in tool('to_onnx', config, weights, out, code=2)
    assert f'there is no checkpoint {tmp_path / "none.pth"}' in tool(
        'to_onnx', config, tmp_path / 'none.pth', out, *shape, code=2
    )
    assert 'there is no config none.py' in tool('to_onnx', 'none.py', weights, out, *shape, code=2)
    torch.save({'backbone.conv1.weight': torch.zeros(8, 3, 3, 3)}, weights)
    assert 'of its weights are missing in the checkpoint' in tool('to_onnx', config, weights, out, *shape, code=2)
    assert not out.exists()


def test_to_onnx__names_missing_packages(tool, save, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    printed = tool('to_onnx', *save(TUPLE_HEAD), '--shape', 16, 16, code=2)
    assert 'run `pip install onnx onnxscript onnxruntime`' in printed
