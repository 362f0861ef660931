import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, DefaultScope

import sar_mm  # noqa: F401
from sar_mm.checks import UsageError
from sar_mm.cli.checkpoints import check_checkpoint, check_checkpoint_path


def classifier():
    return dict(
        type='ImageClassifier',
        backbone=dict(type='CIFARResNet', depth=8, base_channels=4),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='SARLinearClsHead', num_classes=3, in_channels=16, loss=dict(type='SeesawLoss', num_classes=3)),
    )


def segmentor():
    fcn = dict(type='SARFCNHead', channels=4, num_convs=1, num_classes=3, norm_cfg=dict(type='BN'))
    backbone = dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=dict(type='BN'))
    return dict(
        type='EncoderDecoder',
        backbone=backbone,
        decode_head=dict(fcn, in_channels=32, in_index=3),
        auxiliary_head=[dict(fcn, in_channels=16, in_index=2), dict(fcn, in_channels=8, in_index=1)],
        train_cfg=dict(),
        test_cfg=ConfigDict(mode='whole'),
    )


def build(kind, semi=None, tta=False, seed=0):
    toolbox = 'mmpretrain' if kind == 'cls' else 'mmseg'
    pytest.importorskip(f'{toolbox}.models')
    model = classifier() if kind == 'cls' else segmentor()
    if semi is not None:
        name = 'classifier' if kind == 'cls' else 'segmentor'
        model = {'type': f'Semi{name.title()}', name: model, 'semi': semi}
    if tta:
        model = dict(type='AverageClsScoreTTA' if kind == 'cls' else 'SegTTAModel', module=model)
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(toolbox):
        return MODELS.build(model)


TRAINING = (r'(head|decode_head|auxiliary_head\.\d)\.anchor_head\.', r'auxiliary_head\.', r'head\.loss_module\.')
TEACHER = dict(momentum=0.1)
CASES = {
    'plain': (None, False, '', None),
    'tta': (None, True, '', None),
    'self-labeled': (dict(distribution_alignment=dict(momentum=0.9)), False, 'student.', None),
    'teacher': (dict(teacher=TEACHER, predict_on='teacher'), False, 'teacher.module.', None),
    'student': (dict(teacher=TEACHER, predict_on='student'), False, 'student.', None),
    'both': (dict(teacher=TEACHER), False, r'(student|teacher\.module)\.', 'sar_mm.TeacherStudentValLoop'),
}


@pytest.mark.parametrize('kind', ['cls', 'seg'])
@pytest.mark.parametrize('case', CASES)
def test_check_checkpoint__what_predictions_do_without_may_be_missing(kind, case, tmp_path):
    semi, tta, part, loop = CASES[case]
    path = str(tmp_path / 'trained.pth')
    trained = build(kind, semi)
    weights = trained.state_dict()
    runner = SimpleNamespace(model=build(kind, semi, tta, seed=1), cfg=Config(dict(test_cfg=dict(type=loop))))
    needed = {name for name in weights if re.match(part, name)}
    needed -= {name for name in needed for training in TRAINING if re.match(f'(?:{part}){training}', name)}
    assert 0 < len(needed) < len(weights)

    torch.save(dict(state_dict={name: weights[name] for name in needed}), path)
    check_checkpoint(runner, path, 'config', to_resume=False)  # it loads it, too
    with pytest.raises(UsageError, match='weights are missing in the checkpoint'):
        check_checkpoint(runner, path, 'config', to_resume=True)
    broken = {name: weights[name] if name in needed else torch.full((7,), float('nan')) for name in weights}
    torch.save(broken, path)  # nor do the shapes of what is not needed matter
    check_checkpoint(runner, path, 'config', to_resume=False)
    model = (runner.model.module if tta else runner.model).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for name in sorted(set(weights) - needed):  # the real test: what they are does not show
            owner, entry = model.get_submodule(name.rpartition('.')[0]), name.rpartition('.')[2]
            getattr(owner, entry).fill_(3 if not getattr(owner, entry).is_floating_point() else float('nan'))
        assert torch.equal(forward(model, images), forward(trained.eval(), images))

    names = sorted(name for name in needed if not name.endswith('num_batches_tracked'))  # which PyTorch fills in
    for name in names if case == 'plain' else names[::9]:
        torch.save({other: weights[other] for other in needed - {name}}, path)
        if case == 'both' and name.startswith('teacher.'):
            check_checkpoint(runner, path, 'config', to_resume=False)  # the student's is taken
            continue
        message = re.escape(f'1 of its weights are missing in the checkpoint, such as {name}')
        with pytest.raises(UsageError, match=message):
            check_checkpoint(runner, path, 'config', to_resume=False)


def forward(model, images):
    outputs = model(images)  # a mode in which a semi-supervised model forwards what predicts
    return outputs if isinstance(outputs, torch.Tensor) else torch.cat([each.flatten() for each in outputs])


def stock(model):
    """The stock config of a SAR one."""
    if isinstance(model, list):
        return [stock(each) for each in model]
    if not isinstance(model, dict):
        return model
    kept = {key: stock(value) for key, value in model.items() if key != 'anchor_head'}
    return type(model)(kept, type=kept['type'].replace('SAR', '')) if 'type' in kept else type(model)(kept)


def make(kind, is_stock, depth):
    toolbox = 'mmpretrain' if kind == 'cls' else 'mmseg'
    pytest.importorskip(f'{toolbox}.models')
    model = classifier() if kind == 'cls' else segmentor()
    model['backbone']['depth'] = depth
    with DefaultScope.overwrite_default_scope(toolbox):
        return MODELS.build(stock(model) if is_stock else model)


DEPTHS = dict(cls=(8, 14), seg=(18, 34))


@pytest.mark.parametrize('kind', ['cls', 'seg'])
@pytest.mark.parametrize('is_stock', [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_check_checkpoint__one_of_a_deeper_model_is_refused(kind, is_stock, tmp_path):
    """Its first layers have the names and shapes of the shallower model: mmengine loads them, and drops the others."""
    shallow, deep = DEPTHS[kind]
    path = str(tmp_path / 'trained.pth')
    runner = SimpleNamespace(model=make(kind, is_stock[0], shallow), cfg=Config(dict(test_cfg=dict())))
    torch.save(dict(state_dict=make(kind, is_stock[1], shallow).state_dict()), path)
    check_checkpoint(runner, path, 'a.py', to_resume=False)
    more = make(kind, is_stock[1], deep).state_dict()
    torch.save(dict(state_dict=more), path)
    extra = [name for name in more if name not in runner.model.state_dict()]
    extra = [name for name in extra if not re.search(r'(anchor_head|auxiliary_head|loss_module)\.', name)]
    message = (
        f'{len(extra)} weights of the checkpoint are not in it, such as {", ".join(extra[:3])}; if the rest is all'
    )
    with pytest.raises(UsageError, match=f'not a checkpoint of the model in a.py: {re.escape(message)}'):
        check_checkpoint(runner, path, 'a.py', to_resume=False)
    runner.cfg.check_weights = False
    check_checkpoint(runner, path, 'a.py', to_resume=False)
    with pytest.raises(UsageError, match='such as (?!.*check_weights)'):
        check_checkpoint(runner, path, 'a.py', to_resume=True)
    runner.cfg.check_weights, runner.model = True, make(kind, is_stock[0], deep)
    check_checkpoint(runner, path, 'a.py', to_resume=False)


@pytest.mark.parametrize(
    'names',
    [
        ['data_preprocessor.mean', 'data_preprocessor.std'],
        ['module.steps', 'module.n_averaged'],  # a state dict of an averaged model, whose names begin with `module.`
        ['random_center', 'update_flag', 'projecter.conv.weight', 'projecter_linear.0.bias'],  # of the authors' code
        ['contrast_head.fc.weight'],  # of a module that only the training used
        ['decode_head.random_center', 'decode_head.momentum_center_feat', 'decode_head.projecter.bn.running_mean'],
        ['backbone.stages.0.blocks.1.attn_mask', 'backbone.stages.0.blocks.0.attn.w_msa.relative_position_index'],
    ],
    ids=lambda names: names[0],
)
def test_check_checkpoint__what_may_be_there_besides(names, tmp_path):
    path, model = str(tmp_path / 'trained.pth'), make('cls', True, 8)
    weights = model.state_dict()
    if names[0].startswith('module.'):
        weights = {f'module.{name}': weight for name, weight in weights.items()}
    torch.save({**weights, **{name: torch.zeros(1) for name in names}}, path)
    check_checkpoint(SimpleNamespace(model=model), path, 'a.py', to_resume=False)


def test_check_checkpoint__the_averaged_weights_of_an_ema_hook_are_aside(tmp_path):
    path, model = str(tmp_path / 'trained.pth'), make('cls', False, 8)
    averaged = ExponentialMovingAverage(model).state_dict()
    torch.save(dict(state_dict=model.state_dict(), ema_state_dict=averaged, message_hub={}), path)
    check_checkpoint(SimpleNamespace(model=model), path, 'a.py', to_resume=False)
    torch.save(averaged, path)
    check_checkpoint(SimpleNamespace(model=model), path, 'a.py', to_resume=False)


def test_check_checkpoint__heads_of_old_versions_and_constants_of_window_attention(tmp_path):
    pytest.importorskip('mmseg.models')
    swin = dict(type='SwinTransformer', pretrain_img_size=64, embed_dims=8, depths=[2, 1], num_heads=[1, 1])
    swin.update(window_size=4, strides=(4, 2), out_indices=(0, 1))
    head = dict(type='SegmenterMaskTransformerHead', in_channels=16, channels=16, num_classes=3, num_layers=1)
    head.update(in_index=1, embed_dims=16, num_heads=1)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(
            dict(type='EncoderDecoder', backbone=swin, decode_head=head, train_cfg=dict(), test_cfg={})
        )
    path, weights = str(tmp_path / 'trained.pth'), model.state_dict()
    constants = [name for name in weights if name.endswith('relative_position_index')]
    assert constants and not any('conv_seg' in name for name in weights)
    old = {name: weight for name, weight in weights.items() if name not in constants}
    torch.save(
        {**old, 'decode_head.conv_seg.weight': torch.zeros(3), 'decode_head.conv_seg.bias': torch.zeros(3)}, path
    )
    check_checkpoint(SimpleNamespace(model=model), path, 'a.py', to_resume=False)


def test_check_checkpoint_path(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'x.pth').write_bytes(b'')
    (tmp_path / 'folder').mkdir()  # a sharded checkpoint
    for path in ('~/x.pth', '~/folder', 'https://somewhere/x.pth'):
        check_checkpoint_path(path)
    with pytest.raises(UsageError, match='there is no checkpoint ~/gone.pth'):
        check_checkpoint_path('~/gone.pth')
