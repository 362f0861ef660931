"""What every SAR head keeps of its stock head, in whole models."""

import copy
import hashlib
import random

import numpy as np
import pytest
import torch

from sar_mm.models.heads import with_semantic_anchors
from sar_mm.ops import nearest_labels, pull_loss

KINDS = ['seg', 'cascade', 'cls', 'vit', 'vit_hidden']
SHORT = ['seg', 'cls', 'vit_hidden']
OFF = dict(loss=dict(type='SARLoss', anchor_weight=0, pull_weight=0))
TRUNC_NORMAL = [dict(type='TruncNormal', layer='Linear', std=0.02)]


def own(state):
    return {name: value for name, value in state.items() if '.anchor_head.' not in name}


def train(model, make_batch, kind, seed, steps):
    """SGD steps with momentum and weight decay; returns the losses of each."""
    seed(1)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    log = []
    for step in range(steps):
        losses = model(*make_batch(kind, step), mode='loss')
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        log.append(losses)
    return log


def random_states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def projectors(model, sar_heads):
    return {
        f'{index}.{name}': value.clone()
        for index, head in enumerate(sar_heads(model))
        for name, value in head.anchor_head.state_dict().items()
    }


# ----- The stock head's training


@pytest.mark.parametrize('kind', KINDS)
def test_weights_zero__training_is_bit_identical(kind, make_model, make_batch, seed):
    stock, sar = make_model(kind, sar=False), make_model(kind, sar=True, anchor_head=OFF)
    initial = copy.deepcopy(stock.state_dict())
    train(stock, make_batch, kind, seed, steps=5)
    train(sar, make_batch, kind, seed, steps=5)
    assert equal(stock.state_dict(), own(sar.state_dict()))
    changed = [name for name, value in stock.named_parameters() if not torch.equal(value, initial[name])]
    assert len(changed) == len(list(stock.parameters()))


@pytest.mark.parametrize('init_cfg', [None, TRUNC_NORMAL], ids=['own_init', 'trunc_normal'])
@pytest.mark.parametrize('kind', KINDS)
def test_construction__leaves_stock_weights_and_random_states(kind, init_cfg, make_model, sar_heads):
    stock = make_model(kind, sar=False, init_cfg=init_cfg)
    expected = random_states()
    sar = make_model(kind, sar=True, init_cfg=init_cfg, init=False)
    projector = projectors(sar, sar_heads)
    sar.init_weights()
    assert random_states() == expected
    assert equal(stock.state_dict(), own(sar.state_dict()))
    assert equal(projector, projectors(sar, sar_heads))
    linears = [value for name, value in projector.items() if name.endswith('.weight') and value.dim() == 2]
    assert len(linears) == 3 * len(sar_heads(sar)) and all(0.05 < value.std() < 0.5 for value in linears)


@pytest.mark.parametrize('layer', ['Linear', 'Conv2d', 'BatchNorm2d', '_BatchNorm', 'LayerNorm', 'InstanceNorm2d'])
def test_init_weights__of_the_host_leaves_the_projector(layer, fcn):
    FCNHead, options, _ = fcn
    init_cfg = [dict(type='Constant', layer=layer, val=0.25, bias=0.5)]
    head = with_semantic_anchors(FCNHead)(**options, init_cfg=init_cfg, norm_cfg=dict(type='BN'))
    before = copy.deepcopy(head.anchor_head.state_dict())
    head.init_weights()
    assert equal(before, head.anchor_head.state_dict())
    assert (head.conv_seg.weight.unique().tolist() == [0.25]) == (layer == 'Conv2d')
    assert (head.convs[0].bn.bias.unique().tolist() == [0.5]) == ('BatchNorm' in layer)


def test_construction__heads_of_one_model_share_the_seed(make_model, sar_heads):
    sar = make_model('seg', sar=True)
    first, second = (head.anchor_head.state_dict() for head in sar_heads(sar))
    assert equal(first, second)


def test_anchors_and_projector__same_in_another_process(run_python, make_model, sar_heads):
    pytest.importorskip('mmseg.models')
    script = (
        'import hashlib, torch, mmseg.models\n'
        'from sar_mm.registry import MODELS\n'
        'torch.manual_seed(3)\n'
        'head = MODELS.build(dict(type="SARFCNHead", in_channels=32, channels=16, num_classes=5, num_convs=1))\n'
        'head.init_weights()\n'
        'state = head.anchor_head.state_dict()\n'
        'print(hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest())\n'
    )
    (lines,) = run_python(script)
    state = sar_heads(make_model('seg', sar=True))[0].anchor_head.state_dict()
    here = hashlib.sha256(b''.join(value.numpy().tobytes() for value in state.values())).hexdigest()
    assert lines[-1] == here


# ----- The stock head's losses


@pytest.mark.parametrize('kind', KINDS)
def test_loss__native_losses_equal_stock(kind, make_model, make_batch, seed, added_keys):
    logs = []
    for sar in (False, True):
        model = make_model(kind, sar=sar).train()
        seed(1)
        logs.append(model(*make_batch(kind), mode='loss'))
    stock, sar = logs
    assert equal(stock, {name: sar[name] for name in stock})
    assert {name.split('.')[-1] for name in set(sar) - set(stock)} == added_keys
    assert all(sar[name].dim() == 0 and not sar[name].isnan() for name in set(sar) - set(stock))


@pytest.mark.parametrize('kind', SHORT)
def test_loss__same_keys_with_gate_closed_and_open(kind, make_model, make_batch, sar_heads, open_gate, seed):
    model = make_model(kind, sar=True)
    closed = train(model, make_batch, kind, seed, steps=1)[0]
    for head in sar_heads(model):
        open_gate(head)
    opened = model(*make_batch(kind), mode='loss')
    assert list(closed) == list(opened)
    ends = {name: value.item() for name, value in opened.items() if name.endswith(('gate', 'conf', 'acc', 'anchor'))}
    for name, value in ends.items():
        expected = 0.1625189 if name.endswith('loss_anchor') else 0.85 if name.endswith('conf') else 1
        assert 'acc_seg' in name or value == pytest.approx(expected, abs=1e-3), name
    pulls = [name for name in closed if name.endswith('loss_pull')]
    assert len(pulls) == len(sar_heads(model))
    assert all(closed[name] == 0 and opened[name] > 0 for name in pulls)


@pytest.mark.parametrize('kind', SHORT)
def test_loss__gradients_reach_backbone_classifier_and_projector(
    kind, make_model, make_batch, sar_heads, open_gate, added_keys
):
    model = make_model(kind, sar=True).train()
    for head in sar_heads(model):
        open_gate(head)
    losses = model(*make_batch(kind), mode='loss')
    pick = {key: sum(v for name, v in losses.items() if name.endswith(key)) for key in ('loss_anchor', 'loss_pull')}

    def norms(loss):
        model.zero_grad()
        loss.backward(retain_graph=True)
        groups = dict(backbone=model.backbone)
        for index, head in enumerate(sar_heads(model)):
            groups.update({f'classifier{index}': head.classifier_layer, f'projector{index}': head.anchor_head})
        for group, module in groups.items():
            yield group, sum(p.grad.abs().sum().item() for p in module.parameters() if p.grad is not None)

    anchor, pull = dict(norms(pick['loss_anchor'])), dict(norms(pick['loss_pull']))
    # The anchors lead: no gradient of the pull reaches the classifier or the projector.
    assert [group for group, norm in anchor.items() if norm == 0] == ['backbone']
    assert [group for group, norm in pull.items() if norm > 0] == ['backbone']
    assert all(np.isfinite(norm) for norm in (*anchor.values(), *pull.values()))


@pytest.mark.parametrize('kind', KINDS)
def test_loss__every_parameter_takes_part_with_gate_closed(kind, make_model, make_batch):
    model = make_model(kind, sar=True).train()
    losses = model(*make_batch(kind), mode='loss')
    model.parse_losses(losses)[0].backward()
    gates = [value.item() for name, value in losses.items() if name.endswith('gate')]
    assert gates == [0] * len(gates) and len(gates) > 0
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


# ----- Inference and checkpoints


@pytest.mark.parametrize('kind', KINDS)
def test_predict__equals_stock_bit_for_bit(kind, make_model, make_batch, seed):
    stock, sar = make_model(kind, sar=False), make_model(kind, sar=True)
    train(sar, make_batch, kind, seed, steps=1)
    stock.load_state_dict(own(sar.state_dict()))
    before = copy.deepcopy(sar.state_dict())
    tensors, results = [], []
    for model in (stock.eval(), sar.eval()):
        with torch.no_grad():
            tensors.append(model(*make_batch(kind, 9), mode='tensor'))
            results.append(model(*make_batch(kind, 9), mode='predict'))
    flat = [value if isinstance(value, (tuple, list)) else (value,) for value in tensors]
    assert all(torch.equal(one, other) for one, other in zip(*flat))
    for one, other in zip(*results):
        if kind in ('seg', 'cascade'):
            assert torch.equal(one.seg_logits.data, other.seg_logits.data)
            assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
        else:
            assert torch.equal(one.pred_score, other.pred_score)
            assert torch.equal(one.pred_label, other.pred_label)
    assert equal(before, sar.state_dict())


@pytest.mark.parametrize('kind', KINDS)
def test_checkpoint__loads_into_stock_and_back(kind, make_model):
    stock, sar = make_model(kind, sar=False), make_model(kind, sar=True)
    heads = dict(seg=('decode_head', 'auxiliary_head'), cascade=('decode_head.0', 'decode_head.1')).get(kind, ('head',))
    added = [name for name in sar.state_dict() if name not in stock.state_dict()]
    assert [name for name in sar.state_dict() if name not in added] == list(stock.state_dict())
    assert {name.split('.anchor_head.')[0] for name in added} == set(heads)
    assert len(added) == len(heads) * (3 + 3 * 3 + 2)  # three buffers; weights, norms and two biases of the projector
    forth = sar.load_state_dict(stock.state_dict(), strict=False)
    back = stock.load_state_dict(sar.state_dict(), strict=False)
    assert (forth.missing_keys, forth.unexpected_keys) == (added, [])
    assert (back.missing_keys, back.unexpected_keys) == ([], added)


@pytest.mark.parametrize('kind', KINDS)
def test_deepcopy__works_after_a_step(kind, make_model, make_batch, seed):
    model = make_model(kind, sar=True)
    train(model, make_batch, kind, seed, steps=1)
    model(*make_batch(kind), mode='loss')
    twin = copy.deepcopy(model)
    assert equal(model.state_dict(), twin.state_dict())
    logs = []
    for each in (model, twin):
        seed(2)
        logs.append(each(*make_batch(kind), mode='loss'))
    assert equal(*logs)


# ----- Options


@pytest.mark.parametrize('kind', SHORT)
def test_anchor_head__overrides(kind, make_model, sar_heads):
    channels = dict(seg=16, cls=16, vit_hidden=12)[kind]
    options = dict(anchors=dict(type='SimplexETFAnchors'), momentum=0.5, gate_threshold=0.6, ignore_index=None)
    options.update(num_classes=5, channels=channels)  # as in the head
    default, changed = (sar_heads(make_model(kind, sar=True, anchor_head=each))[0] for each in (None, options))
    assert (default.anchor_head.momentum, default.anchor_head.gate_threshold) == (0.999, 0.8)
    assert default.anchor_head.ignore_index == (255 if kind == 'seg' else None)
    assert (changed.anchor_head.momentum, changed.anchor_head.gate_threshold) == (0.5, 0.6)
    assert changed.anchor_head.ignore_index is None
    assert default.anchor_head.semantic_anchors.shape == (5, channels)
    anchors = torch.nn.functional.normalize(changed.anchor_head.anchors)
    cosines = anchors @ anchors.t()
    torch.testing.assert_close(cosines, 1.25 * torch.eye(5) - 0.25, atol=1e-5, rtol=0)


WRONG = [
    (dict(num_classes=7), r'anchor_head\.num_classes.* 5.*7'),
    (dict(channels=9), r'anchor_head\.channels.*9'),
    (dict(anchors=dict(type='NoAnchors')), r'anchors\.type.*GaussianAnchors.*NoAnchors'),
    (dict(loss=dict(type='SARLoss', pull_weight=-1)), r'pull_weight.*-1'),
    (dict(loss=dict(type='SARLoss', confidence_threshold=1.0)), r'confidence_threshold.*1\.0'),
    (dict(gate_threshold=0), r'gate_threshold.*0'),
]


@pytest.mark.parametrize(('kind', 'options', 'match'), [(k, *w) for k, w in zip(SHORT * 2, WRONG)])
def test_anchor_head__wrong_options(kind, options, match, make_model):
    with pytest.raises(ValueError, match=match):
        make_model(kind, sar=True, anchor_head=options)


# ----- Heads of one's own


@pytest.mark.parametrize('dropout', [None, 'dropout', 'own'])
def test_loss__head_that_calls_its_classifier_itself(dropout, fcn, make_seg_samples, open_gate):
    """The feature is the one before the dropout that is called, if one is."""
    FCNHead, options, feats = fcn

    class OwnHead(FCNHead):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.own = torch.nn.Dropout(0.5)
            self.unused = torch.nn.Dropout(0.5)

        def forward(self, inputs):
            feature = self._forward_feature(inputs)
            self.seen = feature.detach().clone()
            self.unused(feature)
            return self.conv_seg(feature if dropout is None else getattr(self, dropout)(feature))

    head = with_semantic_anchors(OwnHead)(**options)
    open_gate(head)
    for each in (head, copy.deepcopy(head)):
        samples = make_seg_samples()
        losses = each.loss(feats, samples, None)
        labels = nearest_labels(each.labels_of(samples)[:, 0], each.seen.shape[2:])
        expected = pull_loss(each.seen, labels, each.anchor_head.semantic_anchors, 255)
        torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * expected)


@pytest.mark.parametrize(('calls', 'match'), [(0, 'none'), (2, r'\(2, 16, 16, 16\), \(2, 16, 16, 16\)')])
def test_loss__head_that_hides_its_feature(calls, match, fcn, make_seg_samples):
    FCNHead, options, feats = fcn

    class OddHead(FCNHead):
        def forward(self, inputs):
            feature = self._forward_feature(inputs)
            for _ in range(calls):
                self.cls_seg(feature)
            return torch.nn.functional.conv2d(feature, self.conv_seg.weight)

    head = with_semantic_anchors(OddHead)(**options)
    with pytest.raises(RuntimeError, match=rf'SAROddHead .*`conv_seg`, but saw {match}: name the layer'):
        head.loss(feats, make_seg_samples(), None)
    copy.deepcopy(head)  # the failed step leaves no graph behind
    assert head.predict(feats, [dict(img_shape=(32, 32))], None).shape == (2, 5, 32, 32)


def test_record__by_a_head_that_has_no_layer_for_it(fcn, make_seg_samples):
    FCNHead, options, feats = fcn

    class OddHead(FCNHead):
        def forward(self, inputs):
            feature = self._forward_feature(inputs)
            self.record(feature)
            return torch.nn.functional.conv2d(feature, self.conv_seg.weight)

    assert with_semantic_anchors(OddHead)(**options).loss(feats, make_seg_samples(), None)['loss_anchor'] > 0


def test_loss_by_feat__outside_loss(fcn, make_seg_samples):
    FCNHead, options, feats = fcn
    head = with_semantic_anchors(FCNHead)(**options)
    with pytest.raises(RuntimeError, match=r'SARFCNHead did not see .* `with head.recording\(\):`'):
        head.loss_by_feat(head(feats), make_seg_samples())
    torch.manual_seed(0)
    expected = copy.deepcopy(head).loss(feats, make_seg_samples(), None)
    torch.manual_seed(0)
    with head.recording():  # the remedy of the message
        losses = head.loss_by_feat(head(feats), make_seg_samples())
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
    copy.deepcopy(head)


@pytest.mark.parametrize('name', ['loss_anchor', 'loss_pull', 'loss_separation', 'anchor_acc', 'anchor_loss'])
def test_construction__loss_with_a_name_of_the_anchor_head(name, fcn):
    FCNHead, options, _ = fcn
    losses = [dict(type='mmseg.CrossEntropyLoss'), dict(type='mmseg.DiceLoss', loss_name=name)]
    for loss_decode in (losses, losses[1]):
        with pytest.raises(ValueError, match=f'`loss_name`.*loss_pull.*{name}'):
            with_semantic_anchors(FCNHead)(**options, loss_decode=loss_decode)


def test_loss__of_a_name_of_the_anchor_head(fcn, make_seg_samples):
    FCNHead, options, feats = fcn

    class OwnHead(FCNHead):
        def loss_by_feat(self, *args):
            return dict(super().loss_by_feat(*args), loss_pull=torch.ones(()))

    with pytest.raises(ValueError, match='SAROwnHead returns loss_pull'):
        with_semantic_anchors(OwnHead)(**options).loss(feats, make_seg_samples(), None)


def test_loss__explains_a_label_that_is_no_class(fcn, make_seg_samples):
    FCNHead, options, feats = fcn
    head = with_semantic_anchors(FCNHead)(**options)
    with pytest.raises(IndexError, match='the label 7 is no class of SARFCNHead, which has 5: check num_classes'):
        head.loss(feats, make_seg_samples(labels=(0, 7, 255)), None)


def test_loss__leaves_other_index_errors_alone(fcn, make_seg_samples):
    FCNHead, options, feats = fcn
    head = with_semantic_anchors(FCNHead)(**options, in_index=4)
    for labels in ((0, 1, 255), (0, 7, 255)):
        with pytest.raises(IndexError) as error:
            head.loss(feats, make_seg_samples(labels=labels), None)
        assert 'label' not in str(error.value)


@pytest.mark.parametrize(
    ('loss', 'match'),
    [
        (dict(type='mmseg.CrossEntropyLoss'), r'loss_decode\.use_sigmoid` to be True'),
        (dict(type='mmseg.DiceLoss', use_sigmoid=False), r'loss_decode\.use_sigmoid` to be True'),
        (
            dict(type='mmseg.CrossEntropyLoss', use_sigmoid=True, class_weight=[1.0, 2.0]),
            r'class_weight.*\[1\.0, 2\.0\]',
        ),
    ],
)
def test_construction__loss_that_cannot_train_one_output(loss, match, fcn):
    FCNHead, options, _ = fcn
    options.update(num_classes=2, out_channels=1, threshold=0.5)
    with pytest.raises(ValueError, match=match):
        with_semantic_anchors(FCNHead)(**options, loss_decode=loss)
    with pytest.raises(ValueError, match=match):
        with_semantic_anchors(FCNHead)(**options, loss_decode=[dict(loss, loss_name='loss_first'), loss])


@pytest.mark.parametrize('class_weight', [None, [2.0]])
def test_construction__losses_of_one_output(class_weight, fcn, make_seg_samples):
    FCNHead, options, feats = fcn
    options.update(num_classes=2, out_channels=1, threshold=0.5)
    loss = dict(type='mmseg.CrossEntropyLoss', use_sigmoid=True, class_weight=class_weight)
    losses = with_semantic_anchors(FCNHead)(**options, loss_decode=loss).loss(
        feats, make_seg_samples(labels=(0, 1)), None
    )
    assert losses['loss_ce'] > 0


def test_loss__feature_of_other_channels(fcn, make_seg_samples):
    FCNHead, options, feats = fcn

    class WideHead(FCNHead):
        def forward(self, inputs):
            feature = self._forward_feature(inputs)
            self.record(feature.repeat(1, 2, 1, 1))
            return torch.nn.functional.conv2d(feature, self.conv_seg.weight)

    head = with_semantic_anchors(WideHead)(**options)
    with pytest.raises(RuntimeError, match=r'SARWideHead .* 16 channels, .* saw \(2, 32, 16, 16\): name the layer'):
        head.loss(feats, make_seg_samples(), None)


def test_construction__no_such_classifier(fcn):
    FCNHead, options, _ = fcn

    class LateHead(FCNHead):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            del self.conv_seg

    with pytest.raises(TypeError, match='SARLateHead has no layer `conv_seg` .*: name the layer that classifies'):
        with_semantic_anchors(LateHead)(**options)


def test_construction__classifier_is_no_linear_layer(fcn):
    FCNHead, options, _ = fcn

    class DeepHead(FCNHead):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.conv_seg = torch.nn.Sequential(self.conv_seg)

    with pytest.raises(TypeError, match='classifier of SARDeepHead is a Sequential, .*: name the layer'):
        with_semantic_anchors(DeepHead)(**options)


def test_construction__stock_constructor_initialises_weights(fcn):
    FCNHead, options, _ = fcn

    class EagerHead(FCNHead):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.init_weights()

    assert with_semantic_anchors(EagerHead)(**options).anchor_head.semantic_anchors.shape == (5, 16)


def test_loss__labels_are_the_heads_own_view(fcn, make_seg_samples, open_gate):
    FCNHead, options, feats = fcn

    class MergingHead(FCNHead):
        def _stack_batch_gt(self, batch_data_samples):
            return super()._stack_batch_gt(batch_data_samples).clamp(max=1)

    head = with_semantic_anchors(MergingHead)(**dict(options, num_classes=2))
    open_gate(head)
    losses = head.loss(feats, make_seg_samples(labels=(3, 4)), None)
    feature = head._forward_feature(feats).detach()
    squares = (feature - head.anchor_head.semantic_anchors[1].view(1, -1, 1, 1)).square().mean()
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * squares)


@pytest.mark.parametrize('use_reentrant', [True, False])
def test_loss__activation_checkpointing(fcn, make_seg_samples, open_gate, use_reentrant):
    FCNHead, options, feats = fcn
    head = with_semantic_anchors(FCNHead)(**options)
    open_gate(head)
    forward = head.forward
    feats = (feats[0].requires_grad_(),)
    head.forward = lambda inputs: torch.utils.checkpoint.checkpoint(
        forward, inputs[0][None], use_reentrant=use_reentrant
    )
    if use_reentrant:
        with pytest.raises(RuntimeError, match='SARFCNHead sees its features without gradients: .*use_reentrant'):
            head.loss(feats, make_seg_samples(), None)
    else:
        head.loss(feats, make_seg_samples(), None)['loss_pull'].backward()
        assert feats[0].grad.abs().sum() > 0


def test_loss__a_feature_that_is_changed_in_place_is_an_error_of_autograd(fcn, make_seg_samples):
    FCNHead, options, feats = fcn

    class PlainHead(FCNHead):
        def cls_seg(self, feat):
            logits = self.conv_seg(feat)
            feat.detach().mul_(2)
            return logits

    losses = with_semantic_anchors(PlainHead)(**options).loss(feats, make_seg_samples(), None)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        (losses['loss_ce'] + losses['loss_pull']).backward()
