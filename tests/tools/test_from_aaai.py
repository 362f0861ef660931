"""Checkpoints of the authors' code, from a module built as theirs is to a run of ours that goes on."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools' / 'model_converters'
NAME = 'fcn_unet_1xb16-400iter_digit-scenes-64x64'
STOCK, SAR = (ROOT / 'configs' / 'quickstart' / f'{prefix}{NAME}.py' for prefix in ('', 'sar_'))
K, C, ITER = 11, 64, 5  # iterations done: mmcv 1.x saves one less
OPTIMIZER = """
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0005))
train_cfg = dict(max_iters=8)
"""


def build(path):
    pytest.importorskip('mmseg.models')
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(Config.fromfile(path).model)


def projector_of_theirs():
    """The projector, of torch's own layers, under the authors' names."""
    convolution = nn.Module()
    convolution.conv, convolution.bn = nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C)
    layers = [nn.Linear(C, C), nn.BatchNorm1d(C), nn.ReLU(), nn.Linear(C, C), nn.BatchNorm1d(C), nn.ReLU()]
    return nn.Sequential(*layers), convolution


def embed(model):
    """Embed the anchors as the authors' code does: the last layer is a 1x1 convolution on a 1x1 map."""
    hidden = model.projecter_linear(model.random_center)[:, :, None, None]
    return torch.relu(model.projecter.bn(model.projecter.conv(hidden))).flatten(1)


@pytest.fixture(scope='module')
def theirs(tmp_path_factory):
    """A stock model with what the authors' segmentor adds, trained for a step, and its checkpoint."""
    torch.manual_seed(0)
    model = build(STOCK)
    model.register_buffer('random_center', torch.randn(K, C))
    model.register_buffer('center_lbl', torch.arange(K))
    model.register_buffer('local_iter', torch.tensor([ITER]))
    model.projecter_linear, model.projecter = projector_of_theirs()
    model.register_buffer('update_flag', torch.tensor(1))
    model.register_buffer('momentum_center_feat', torch.randn(K, C))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    meta = dict(epoch=1, iter=ITER - 1, mmseg_version='0.30.0', config='model = dict()', seed=3)
    meta.update(CLASSES=tuple(map(str, range(K))), PALETTE=[[k, k, k] for k in range(K)])
    folder = tmp_path_factory.mktemp('theirs')
    config = folder / 'sar.py'
    config.write_text(f'_base_ = {str(SAR)!r}\n{OPTIMIZER}')
    checkpoint = dict(meta=meta, state_dict=model.state_dict(), optimizer=optimizer.state_dict())
    torch.save(checkpoint, folder / 'theirs.pth')
    momentum = {name: optimizer.state[each]['momentum_buffer'] for name, each in model.named_parameters()}
    return SimpleNamespace(
        folder=folder, model=model, momentum=momentum, config=config, path=folder / 'theirs.pth', checkpoint=checkpoint
    )


@pytest.fixture(scope='module')
def convert(run_tool):
    return lambda *arguments, code=0, tool='from_aaai': run_tool(TOOLS / f'{tool}.py', *arguments, code=code)


@pytest.fixture(scope='module')
def converted(theirs, convert):
    out = theirs.folder / 'ours.pth'
    printed = convert(theirs.path, out, '--config', theirs.config)
    return SimpleNamespace(printed=printed, path=out, checkpoint=torch.load(out, weights_only=True))


@pytest.fixture(scope='module')
def going_on(theirs, converted):
    """The config with the line that the tool prints."""
    (line,) = [line for line in converted.printed.splitlines() if line.startswith('  model = ')]
    config = theirs.folder / 'going_on.py'
    config.write_text(f'_base_ = {str(theirs.config)!r}\n{line.strip()}\n')
    return config


def test_from_aaai__weights_load_strictly_and_give_the_same_logits_and_anchors(theirs, converted, going_on):
    model = build(going_on)
    model.load_state_dict(converted.checkpoint['state_dict'], strict=True)
    head = model.decode_head.anchor_head
    assert torch.equal(head.semantic_anchors, theirs.model.momentum_center_feat)
    assert torch.equal(head.initialized, torch.ones(K))
    torch.testing.assert_close(head.projector(head.anchors), embed(theirs.model.train()))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), theirs.model.eval()(images))


def test_from_aaai__meta_and_the_anchors_file(theirs, converted):
    meta = converted.checkpoint['meta']
    classes, palette = (theirs.checkpoint['meta'][name] for name in ('CLASSES', 'PALETTE'))
    assert meta == dict(epoch=1, iter=ITER, seed=3, dataset_meta=dict(classes=classes, palette=palette))
    anchors = np.load(theirs.folder / 'ours.npy')
    assert np.array_equal(anchors, theirs.model.random_center.numpy())
    # Running means, variances and counts of three norms, the labels and the iteration.
    assert '11 dropped' in converted.printed


@pytest.mark.parametrize(
    'runner, expected',
    [("type='IterBasedRunner', max_iters=9", ITER), ("type='EpochBasedRunner', max_epochs=9", ITER - 1)],
)
def test_from_aaai__the_iteration_is_the_number_of_steps_done(runner, expected, theirs, convert, tmp_path):
    meta = dict(theirs.checkpoint['meta'], config=f'runner = dict({runner})')
    torch.save(dict(theirs.checkpoint, meta=meta), tmp_path / 'theirs.pth')
    convert(tmp_path / 'theirs.pth', tmp_path / 'ours.pth', '--config', theirs.config)
    found = torch.load(tmp_path / 'ours.pth', weights_only=True)
    assert found['meta']['iter'] == found['param_schedulers'][0]['last_step'] == expected


def test_from_aaai__momentum_goes_to_the_same_parameter(theirs, converted, going_on):
    names = {
        'random_center': 'anchors',
        'projecter_linear.': 'projector.',
        'projecter.conv.': 'projector.6.',
        'projecter.bn.': 'projector.7.',
    }
    parameters = [name for name, _ in build(going_on).named_parameters()]
    state = converted.checkpoint['optimizer']['state']
    assert len(state) == len(parameters) == len(theirs.momentum)
    for name, momentum in theirs.momentum.items():
        for old, new in names.items():
            name = f'decode_head.anchor_head.{new}{name[len(old) :]}' if name.startswith(old) else name
        found = state[parameters.index(name)]['momentum_buffer']
        assert torch.equal(found.flatten(), momentum.flatten()), name


def test_from_aaai__rates_are_those_of_the_config(converted):
    # PolyLR of the config, power 0.9: the last of 400 iterations has the rate 1e-5.
    expected = (0.02 - 1e-5) * (1 - ITER / 399) ** 0.9 + 1e-5
    (group,) = converted.checkpoint['optimizer']['param_groups']
    assert group['lr'] == pytest.approx(expected, rel=1e-6) and group['momentum'] == 0.9
    (schedule,) = converted.checkpoint['param_schedulers']
    assert schedule['last_step'] == ITER
    rates = f'0.02 in the last step of the checkpoint, {expected:.4g} in the next of the config'
    assert f'learning rate: {rates}' in converted.printed


@pytest.mark.slow
@pytest.mark.ci
def test_from_aaai__runs_go_on(theirs, converted, going_on, digits, run_tool):
    if not (theirs.folder / 'data').exists():
        (theirs.folder / 'data').symlink_to(digits)
    train = ROOT / 'tools' / 'train.py'
    output = run_tool(train, going_on, '--resume', converted.path, '--work-dir', 'resumed', folder=theirs.folder)
    assert f'resumed epoch: 1, iter: {ITER}' in output and 'Iter(val)' in output
    resumed = torch.load(theirs.folder / 'resumed' / 'iter_8.pth', map_location='cpu', weights_only=False)
    assert resumed['param_schedulers'][0]['last_step'] == 8
    options = ['--cfg-options', f'load_from={converted.path}', 'train_cfg.max_iters=1']
    output = run_tool(train, going_on, '--work-dir', 'tuned', *options, folder=theirs.folder)
    assert f'Load checkpoint from {converted.path}' in output
    assert 'S starts anew' not in output and 'size mismatch' not in output and 'missing keys' not in output


def test_from_aaai__weights_only(theirs, convert, tmp_path):
    bare = tmp_path / 'bare.pth'
    torch.save({f'module.{name}': weight for name, weight in theirs.model.state_dict().items()}, bare)
    message = f'{bare} has no epoch and no iter and no optimizer to resume: add --weights-only'
    assert message in convert(bare, tmp_path / 'out.pth', '--config', SAR, code=2)
    convert(bare, tmp_path / 'out.pth', '--config', SAR, '--weights-only')
    assert torch.load(tmp_path / 'out.pth', weights_only=True).keys() == {'meta', 'state_dict'}


def test_from_aaai__names_below_the_decode_head(theirs, converted, convert, tmp_path):
    added = ('random_', 'momentum_', 'update_', 'center_', 'local_', 'projecter')
    weights = theirs.model.state_dict()
    torch.save({f'decode_head.{k}' if k.startswith(added) else k: v for k, v in weights.items()}, tmp_path / 'a.pth')
    convert(tmp_path / 'a.pth', tmp_path / 'out.pth', '--config', SAR, '--weights-only')
    found = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    expected = converted.checkpoint['state_dict']
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_from_aaai__anchors_that_never_started(theirs, convert, tmp_path):
    weights = dict(theirs.model.state_dict())
    weights['update_flag'] = torch.tensor([0])
    torch.save(weights, tmp_path / 'early.pth')
    convert(tmp_path / 'early.pth', tmp_path / 'out.pth', '--config', SAR, '--weights-only')
    found = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    assert torch.equal(found['decode_head.anchor_head.initialized'], torch.zeros(K))


def test_from_aaai__files_and_configs_that_do_not_fit(theirs, convert, tmp_path):
    out = tmp_path / 'out.pth'

    def refused(source, config=SAR, *options):
        return convert(source, out, '--config', config, *options, code=2)

    assert f'there is no checkpoint {tmp_path / "none.pth"}' in refused(tmp_path / 'none.pth')
    torch.save(build(STOCK).state_dict(), tmp_path / 'stock.pth')
    assert "is not a checkpoint of the authors' code: no name in it ends with random_center" in refused(
        tmp_path / 'stock.pth'
    )
    assert "model.decode_head is to be one head with anchors, such as type='SARFCNHead'" in refused(theirs.path, STOCK)
    wider = tmp_path / 'wider.py'
    wider.write_text(f'_base_ = {str(theirs.config)!r}\nmodel = dict(decode_head=dict(num_convs=2))\n')
    assert f'{wider} is not the config of the same model' in refused(theirs.path, wider)
    # AdamW's state is another one.
    assert 'has the optimizer AdamW, whose state is another one' in refused(theirs.path, SAR)
    frozen = dict(theirs.checkpoint, optimizer=dict(state={}, param_groups=[dict(params=[0, 1], lr=1.0)]))
    torch.save(frozen, tmp_path / 'frozen.pth')
    assert "the checkpoint's optimizer has 2 parameters" in refused(tmp_path / 'frozen.pth', theirs.config)
    assert not out.exists() and not out.with_suffix('.npy').exists()


def test_to_stock__drops_the_tensors_of_the_authors(theirs, convert, tmp_path):
    printed = convert(theirs.path, tmp_path / 'stock.pth', tool='to_stock')
    stock = build(STOCK)
    stock.load_state_dict(torch.load(tmp_path / 'stock.pth', weights_only=True)['state_dict'], strict=True)
    assert '25 tensors of semantic anchors dropped' in printed
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(stock.eval()(images), theirs.model.eval()(images))
