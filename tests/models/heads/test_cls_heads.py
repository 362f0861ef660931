"""SAR versions of mmpretrain's heads, fed with features directly."""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain.models')

import mmpretrain.models.heads as stock_heads  # noqa: E402
from mmpretrain.models.utils import RandomBatchAugment  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.structures import DataSample, MultiTaskDataSample  # noqa: E402

from sar_mm.models import SemanticAnchorHead  # noqa: E402
from sar_mm.models.heads import SARHeadMixin, cls_heads, with_semantic_anchors  # noqa: E402

OPTIONS = dict(
    ArcFaceClsHead=dict(in_channels=6),
    CSRAClsHead=dict(in_channels=6, num_heads=2, lam=0.1),
    ConformerHead=dict(in_channels=[6, 8]),
    DeiTClsHead=dict(in_channels=10, hidden_dim=6),
    EfficientFormerClsHead=dict(in_channels=6, distillation=False),
    LeViTClsHead=dict(in_channels=6, distillation=False),
    LinearClsHead=dict(in_channels=6),
    MultiLabelLinearClsHead=dict(in_channels=6),
    NormedLinearClsHead=dict(in_channels=6),
    StackedLinearClsHead=dict(in_channels=10, mid_channels=[8, 6], dropout_rate=0.5),
    VigClsHead=dict(in_channels=10, hidden_dim=6, dropout=0.5),
    VisionTransformerClsHead=dict(in_channels=6),
)
SINGLE_LABEL = [name for name in OPTIONS if name not in ('CSRAClsHead', 'MultiLabelLinearClsHead')]
MULTI_LABEL = [name for name in OPTIONS if name not in SINGLE_LABEL]
LABELS = [0, 3, 3, 1, 2, 0]
PRESENT = [[0], [3, 1], [], [1], [2, 0, 3], [0]]
# The layer whose input is the feature.
FEATURE = dict(
    ArcFaceClsHead=lambda head: head.norm_product,
    CSRAClsHead=lambda head: head.csra_heads[1].head,
    EfficientFormerClsHead=lambda head: head.head,
    LeViTClsHead=lambda head: head.head.linear,
    LinearClsHead=lambda head: head.fc,
    MultiLabelLinearClsHead=lambda head: head.fc,
    NormedLinearClsHead=lambda head: head.fc,
    StackedLinearClsHead=lambda head: head.layers[1].dropout,
    VigClsHead=lambda head: head.drop,
    VisionTransformerClsHead=lambda head: head.layers.head,
)


def build(name, sar, **options):
    torch.manual_seed(0)
    head_class = MODELS.get(f'SAR{name}' if sar else name)
    return head_class(num_classes=4, **{**OPTIONS[name], **options})


def features(name):
    """What a head is given, of six images."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(len(LABELS), *shape, generator=generator).requires_grad_()

    if name == 'ConformerHead':
        return ([draw(6), draw(8)],)
    if name == 'DeiTClsHead':
        return ([draw(10), draw(10)],)
    if name == 'CSRAClsHead':
        return (draw(6, 3, 2),)
    if name == 'LeViTClsHead':
        return (draw(6),)
    return (draw(OPTIONS[name]['in_channels']),)


def leaves(feats):
    return [leaf for each in feats for leaf in (each if isinstance(each, list) else [each])]


def hard(labels=LABELS):
    return [DataSample().set_gt_label(label) for label in labels]


def soft(scores):
    return [DataSample().set_gt_label(label).set_gt_score(score) for label, score in zip(LABELS, scores)]


def samples_of(name):
    return hard(PRESENT if name in MULTI_LABEL else LABELS)


@pytest.fixture
def open_all(monkeypatch):
    """Open every gate."""
    monkeypatch.setattr(
        'sar_mm.models.anchor_head.anchor_scores',
        lambda logits: (logits.diagonal() < torch.inf, logits.new_ones(len(logits))),
    )


def joined(tensors):
    return tensors if isinstance(tensors, torch.Tensor) else torch.cat(list(tensors))


@contextmanager
def seen_by(layer):
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    yield seen
    handle.remove()


# ----- All heads


def test_options__cover_every_head():
    assert sorted([f'SAR{name}' for name in OPTIONS] + ['SARMultiTaskHead']) == sorted(cls_heads.__all__)


def expected_keys(name, added_keys):
    if name == 'ConformerHead':
        return {f'{branch}_{key}' for branch in ('conv', 'trans') for key in added_keys}
    return added_keys


@pytest.mark.parametrize('name', OPTIONS)
def test_matrix__loss_backward_predict(name, added_keys, open_all, layout):
    stock, sar = build(name, sar=False), build(name, sar=True)
    before = layout(sar)
    samples = samples_of(name)
    logs = []
    for head in (stock.train(), sar.train()):
        torch.manual_seed(1)
        feats = features(name)
        logs.append(head.loss(feats, samples))
    assert set(logs[1]) - set(logs[0]) == expected_keys(name, added_keys)
    assert all(torch.equal(value, logs[1][key]) for key, value in logs[0].items())
    assert all(value.isfinite().all() for value in logs[1].values())
    assert all(value > 0 for key, value in logs[1].items() if 'loss' in key)

    sum(value for key, value in logs[1].items() if 'loss' in key).backward()
    assert all(parameter.grad.isfinite().all() for parameter in sar.parameters())
    assert all(layer.weight.grad.any() for layer in sar.classifier_layers)
    firsts = [value.grad for key, value in sar.named_parameters() if key.endswith('projector.0.weight')]
    assert len(firsts) == (2 if name == 'ConformerHead' else 1) and all(grad.any() for grad in firsts)
    assert all(leaf.grad.isfinite().all() and leaf.grad.any() for leaf in leaves(feats))

    assert layout(sar) == before

    missing, unexpected = sar.load_state_dict(stock.state_dict(), strict=False)
    assert missing and all(key.startswith('anchor_head.') for key in missing) and not unexpected
    predictions = [head.eval().predict(features(name)) for head in (stock, sar)]
    for one, other in zip(*predictions):
        assert torch.equal(one.pred_score, other.pred_score) and torch.equal(one.pred_label, other.pred_label)


@pytest.mark.parametrize('name', OPTIONS)
def test_matrix__construction_leaves_stock_weights_and_the_random_state(name):
    heads, states = [], []
    for sar in (False, True):
        heads.append(build(name, sar))
        heads[-1].init_weights()
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    stock, sar = (head.state_dict() for head in heads)
    assert all(torch.equal(value, sar[key]) for key, value in stock.items())


@pytest.mark.parametrize('name', OPTIONS)
def test_matrix__deepcopy_records_its_own_features(name, open_all):
    head = build(name, sar=True).eval()  # without dropout
    head.loss(features(name), samples_of(name))
    twin = copy.deepcopy(head)
    losses = [each.loss(features(name), samples_of(name)) for each in (head, twin)]
    assert all(torch.equal(value, losses[1][key]) for key, value in losses[0].items())


@pytest.mark.parametrize('name', FEATURE)
def test_matrix__pull_is_that_of_the_feature(name, open_all):
    head = build(name, sar=True).train()
    feats = features(name)
    embedded = head.anchor_head.projector(head.anchor_head.anchors).detach()
    with seen_by(FEATURE[name](head)) as seen:
        losses = head.loss(feats, samples_of(name))
    feature = seen[0].mean((2, 3)) if name == 'CSRAClsHead' else seen[0]
    assert feature.shape == (6, 6)
    classes = PRESENT if name in MULTI_LABEL else [[label] for label in LABELS]
    squares = [(row - embedded[each].mean(0)).square().mean() for row, each in zip(feature, classes) if each]
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * torch.stack(squares).mean())


@pytest.mark.parametrize('name', SINGLE_LABEL)
def test_matrix__one_hot_scores_equal_hard_labels_exactly(name, open_all):
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 4)
    logs = [build(name, sar=True).eval().loss(features(name), samples) for samples in (hard(), soft(one_hot.float()))]
    added = [key for key in logs[0] if 'anchor' in key or 'pull' in key]
    assert added and all(torch.equal(logs[0][key], logs[1][key]) for key in added)


@pytest.mark.parametrize(('name', 'augment'), zip(SINGLE_LABEL, ['Mixup', 'CutMix'] * 5))
def test_matrix__batch_augments_pull_to_the_mixture(name, augment, open_all):
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 4)
    np.random.seed(0)
    torch.manual_seed(2)
    _, scores = RandomBatchAugment(dict(type=augment, alpha=1.0))(torch.randn(6, 3, 8, 8), one_hot)
    assert ((scores > 0).sum(1) == 2).any()
    head = build(name, sar=True).train()
    seen = []
    for anchor_head in [m for m in head.modules() if isinstance(m, SemanticAnchorHead)]:
        loss = anchor_head.loss
        anchor_head.loss = lambda feature, target, classify, weight, loss=loss, anchor_head=anchor_head: (
            seen.append((joined(feature).detach(), anchor_head)) or loss(feature, target, classify, weight)
        )
    losses = head.loss(features(name), soft(scores))
    pulls = [value for key, value in losses.items() if key.endswith('loss_pull')]
    assert len(pulls) == len(seen) == (2 if name == 'ConformerHead' else 1)
    for pull, (feature, anchor_head) in zip(pulls, seen):
        rows = scores.tolist() * (len(feature) // len(LABELS))
        total = 0
        for row, weights in zip(feature, rows):
            centre = sum(weight * anchor_head.semantic_anchors[index] for index, weight in enumerate(weights))
            total += (row - centre).square().mean()
        torch.testing.assert_close(pull.detach(), 0.1 * total / len(feature))


def test_linear__scores_may_be_integers(open_all):
    # The data preprocessor's to_onehot makes such scores where nothing mixes them.
    soft_loss = dict(type='mmpretrain.CrossEntropyLoss', use_soft=True)
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 4)
    logs = [
        build('LinearClsHead', sar=True, loss=soft_loss).loss(features('LinearClsHead'), soft(scores))
        for scores in (one_hot, one_hot.float())
    ]
    assert all(torch.equal(value, logs[1][key]) for key, value in logs[0].items())


@pytest.mark.parametrize('name', MULTI_LABEL)
def test_multi_label__unknown_classes_and_weights(name, open_all):
    scores = torch.tensor([[1.0, -1, 0, 0]] * 3 + [[0.5, 0, 1.5, 0]] * 2 + [[0.0, 0, 0, 0]])
    same = torch.tensor([[1.0, 0, 0, 0]] * 3 + [[0.25, 0, 0.75, 0]] * 2 + [[0.0, 0, 0, 0]])
    logs = [build(name, sar=True).loss(features(name), soft(each)) for each in (scores, same)]
    torch.testing.assert_close(logs[0]['loss_pull'], logs[1]['loss_pull'])
    assert logs[0]['loss_pull'] > 0


# ----- What is special about some


def test_stacked__without_dropout(open_all):
    head = build('StackedLinearClsHead', sar=True, dropout_rate=0.0).train()
    with seen_by(head.layers[-1].fc) as seen:
        losses = head.loss(features('StackedLinearClsHead'), hard())
    squares = (seen[0] - head.anchor_head.semantic_anchors[LABELS]).square().mean()
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * squares)


@pytest.mark.parametrize('name', ['ConformerHead', 'DeiTClsHead'])
def test_branches__a_head_that_hides_its_features(name):
    class Odd(getattr(stock_heads, name)):
        def loss(self, feats, data_samples):
            return dict(loss=feats[0][0].sum())

    head = with_semantic_anchors(Odd)(num_classes=4, **OPTIONS[name])
    with pytest.raises(
        RuntimeError, match='SAROdd should see a feature per step, one of 6 channels and one of .* saw none'
    ):
        head.loss(features(name), hard())


def test_deit__both_tokens_have_the_same_anchors(open_all):
    head = build('DeiTClsHead', sar=True)
    embedded = head.anchor_head.projector(head.anchor_head.anchors).detach()
    expected = (head.layers.head(embedded) + head.layers.head_dist(embedded)) / 2
    torch.testing.assert_close(head.classify(embedded), expected)
    feats = features('DeiTClsHead')
    losses = head.loss(feats, hard())
    tokens = [token.detach() for token in head.pre_logits(feats)]
    squares = [(token - embedded[LABELS]).square().mean() for token in tokens]
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * sum(squares) / 2)


def test_conformer__each_branch_has_its_own_anchors(open_all):
    head = build('ConformerHead', sar=True, anchor_head=dict(loss=dict(type='SARLoss', pull_weight=2.0)))
    feats = features('ConformerHead')
    losses = head.loss(feats, hard())
    for branch, feature, channels in zip(('conv', 'trans'), feats[0], (6, 8)):
        anchors = head.anchor_head[branch].semantic_anchors
        assert anchors.shape == (4, channels)
        expected = 2.0 * (feature.detach() - anchors[LABELS]).square().mean()
        torch.testing.assert_close(losses[f'{branch}_loss_pull'].detach(), expected)
        assert losses[f'{branch}_anchor_gate'] == 1


def test_arcface__anchors_are_classified_by_the_scaled_cosine():
    head = build('ArcFaceClsHead', sar=True, num_subcenters=3, scale=16.0)
    anchors = torch.randn(4, 6)
    unit, weight = (torch.nn.functional.normalize(each, dim=1) for each in (anchors, head.norm_product.weight.detach()))
    expected = 16 * (unit @ weight.t()).view(4, 4, 3).amax(2)
    torch.testing.assert_close(head.classify(anchors).detach(), expected)


def test_csra__anchors_are_classified_like_an_even_feature_map():
    head = build('CSRAClsHead', sar=True).eval()
    anchors = torch.randn(4, 6)
    expected = head((anchors[:, :, None, None].expand(-1, -1, 3, 2),))
    torch.testing.assert_close(head.classify(anchors), expected)


@pytest.mark.parametrize('name', MULTI_LABEL)
def test_multi_label__scores_equal_labels(name, open_all):
    scores = torch.zeros(6, 4)
    for row, present in zip(scores, PRESENT):
        row[present] = 1
    logs = [build(name, sar=True).loss(features(name), samples) for samples in (hard(PRESENT), soft(scores))]
    assert all(torch.equal(value, logs[1][key]) for key, value in logs[0].items())


def test_multi_label__own_head(open_all):
    class Own(stock_heads.MultiLabelClsHead):
        def __init__(self):
            super().__init__()
            self.score = torch.nn.Linear(6, 4)

        def forward(self, feats):
            return self.score(feats[-1])

    head = with_semantic_anchors(Own, classifier='score')()
    feats = features('MultiLabelLinearClsHead')
    losses = head.loss(feats, hard(PRESENT))
    anchors = head.anchor_head.semantic_anchors
    squares = [(row - anchors[each].mean(0)).square().mean() for row, each in zip(feats[0].detach(), PRESENT) if each]
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * torch.stack(squares).mean())


@pytest.mark.parametrize('name', ['EfficientFormerClsHead', 'LeViTClsHead'])
@pytest.mark.parametrize('options', [dict(), dict(distillation=True)], ids=['default', 'set'])
def test_distilled__is_refused(name, options):
    given = {key: value for key, value in OPTIONS[name].items() if key != 'distillation'}
    with pytest.raises(ValueError, match='`distillation` to be False, as .* cannot train with it, but got True'):
        getattr(cls_heads, f'SAR{name}')(num_classes=4, **given, **options)


def test_linear__one_class_has_no_anchors():
    with pytest.raises(ValueError, match='`num_classes` to be an integer of at least 2, but got 1'):
        cls_heads.SARLinearClsHead(num_classes=1, in_channels=6)


# ----- Several tasks


def multi_task(**options):
    tasks = dict(
        shape=dict(type='LinearClsHead', num_classes=4),
        colour=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=3, anchor_head=dict(gate_threshold=0.5)),
        size=dict(type=stock_heads.LinearClsHead, num_classes=2),
    )
    torch.manual_seed(0)
    return cls_heads.SARMultiTaskHead(task_heads=tasks, in_channels=6, **options)


def task_samples(*tasks):
    samples = []
    for label in LABELS:
        sample = MultiTaskDataSample()
        for task in tasks:
            sample.set_field(DataSample().set_gt_label(label % 2), task)
        samples.append(sample)
    return samples


def test_multi_task__sub_heads_get_anchors(added_keys, open_all):
    head = multi_task(anchor_head=dict(gate_threshold=0.7))
    assert [type(sub).__name__ for sub in head.task_heads.values()] == [
        'SARLinearClsHead',
        'SARVisionTransformerClsHead',
        'SARLinearClsHead',
    ]
    assert [sub.anchor_head.gate_threshold for sub in head.task_heads.values()] == [0.7, 0.5, 0.7]
    losses = head.loss(features('LinearClsHead'), task_samples('shape', 'colour', 'size'))
    for task in ('shape', 'colour', 'size'):
        assert {f'{task}_{key}' for key in added_keys | {'loss', 'mask_size'}} <= set(losses)
        assert losses[f'{task}_loss_pull'] > 0


def test_multi_task__absent_task_keeps_keys_and_parameters(open_all):
    head = multi_task()
    everything = head.loss(features('LinearClsHead'), task_samples('shape', 'colour', 'size'))
    losses = head.loss(features('LinearClsHead'), task_samples('shape'))
    assert set(losses) == set(everything)
    assert losses['shape_loss_pull'] > 0 and losses['colour_loss_pull'] == losses['size_loss_pull'] == 0
    assert losses['colour_loss_anchor'] > 0 and losses['colour_anchor_gate'] == 1
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert [key for key, parameter in head.named_parameters() if parameter.grad is None] == []


def test_multi_task__partly_labeled_batch(open_all):
    head = multi_task()
    feats = features('LinearClsHead')
    samples = [MultiTaskDataSample() for _ in LABELS]
    for sample in samples[:4]:
        sample.set_field(DataSample().set_gt_label(1), 'shape')
    samples[2].set_field(DataSample().set_gt_label(2), 'colour')
    losses = head.loss(feats, samples)
    anchors = head.task_heads['colour'].anchor_head.semantic_anchors
    expected = 0.1 * (feats[0][2].detach() - anchors[2]).square().mean()
    torch.testing.assert_close(losses['colour_loss_pull'].detach(), expected)
    assert losses['shape_loss_pull'] > 0 and losses['size_loss_pull'] == 0


def test_multi_task__own_and_built_sub_heads():
    class MyHead(stock_heads.LinearClsHead):
        pass

    MODELS.register_module(module=MyHead, name='MyTaskHead', force=True)
    built = cls_heads.SARLinearClsHead(num_classes=3, in_channels=6)
    tasks = dict(
        own=dict(type='MyTaskHead', num_classes=2), sar=dict(type='SARLinearClsHead', num_classes=2), built=built
    )
    head = cls_heads.SARMultiTaskHead(task_heads=tasks, in_channels=6)
    assert isinstance(head.task_heads['own'], MyHead)
    assert all(isinstance(sub, SARHeadMixin) for sub in head.task_heads.values())
    assert head.task_heads['built'] is built
    with pytest.raises(TypeError, match='configs of stock heads, or SAR heads, but got a LinearClsHead'):
        cls_heads.SARMultiTaskHead(task_heads=dict(a=stock_heads.LinearClsHead(num_classes=3, in_channels=6)))


def test_multi_task__sub_head_without_classes():
    if 'LinearRegressionHead' not in MODELS.module_dict:
        pytest.skip('this mmpretrain has no regression head')
    with pytest.raises(TypeError, match='LinearRegressionHead can have no semantic anchors: it regresses numbers'):
        cls_heads.SARMultiTaskHead(task_heads=dict(age=dict(type='LinearRegressionHead')), num_classes=1, in_channels=6)


# ----- Linear and ViT heads in detail

HEADS = dict(
    linear=('LinearClsHead', dict()),
    vit=('VisionTransformerClsHead', dict()),
    vit_hidden=('VisionTransformerClsHead', dict(in_channels=10, hidden_dim=6)),
)


@pytest.fixture(params=HEADS)
def head(request, open_gate):
    """A SAR head with an open gate; six features in front of its classifier, its input."""
    name, options = HEADS[request.param]
    # With so few channels, the embedded anchors of some seeds are linearly dependent: no classifier tells them apart.
    head = build(name, sar=True, anchor_head=dict(seed=3), **options)
    open_gate(head)
    feats = (torch.randn(len(LABELS), head.in_channels, requires_grad=True),)
    return head, feats, head.pre_logits(feats).detach()


def test_loss__hard_labels(head):
    head, feats, feature = head
    embedded = head.anchor_head.projector(head.anchor_head.anchors).detach()
    losses = head.loss(feats, hard())
    torch.testing.assert_close(head.anchor_head.semantic_anchors, embedded)
    assert losses['anchor_gate'] == 1 and losses['anchor_acc'] == 1
    expected = (feature - embedded[LABELS]).square().sum() / (6 * 6)
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * expected)
    torch.testing.assert_close(losses['loss_anchor'].detach(), torch.tensor(0.1625189), atol=1e-3, rtol=0)
    stock = torch.nn.functional.cross_entropy(head.classifier_layer(feature), torch.tensor(LABELS))
    torch.testing.assert_close(losses['loss'], stock)


def test_loss__batch_augments_of_the_model(make_model, make_batch, sar_heads, open_gate):
    model = make_model('cls', sar=True)
    open_gate(sar_heads(model)[0])
    images, samples = make_batch('cls')
    augment = RandomBatchAugment(dict(type='Mixup', alpha=0.8))
    _, scores = augment(images, torch.nn.functional.one_hot(torch.arange(8) % 5, 5).float())
    for sample, score in zip(samples, scores):
        sample.set_gt_score(score)
    feature = model.extract_feat(images)[-1]
    losses = model(images, samples, mode='loss')
    centre = scores @ sar_heads(model)[0].anchor_head.semantic_anchors
    torch.testing.assert_close(losses['loss_pull'], 0.1 * (feature - centre).square().mean())


def test_loss__accuracy_is_kept(head):
    head, feats, feature = head
    head.cal_acc = True
    losses = head.loss(feats, hard())
    right = head.classifier_layer(feature).argmax(1) == torch.tensor(LABELS)
    assert losses['accuracy_top-1'][0].item() == pytest.approx(100 * right.float().mean().item())


# ----- Weights


@pytest.mark.parametrize('name', ['LinearClsHead', 'DeiTClsHead', 'ConformerHead'])
def test_loss__sample_weights_are_weights_of_the_pull(name, monkeypatch):
    seen, forward = [], SemanticAnchorHead.loss

    def watch(self, feature, target, classify, weight=None):
        seen.append(joined(weight))
        return forward(self, feature, target, classify, weight)

    monkeypatch.setattr(SemanticAnchorHead, 'loss', watch)
    samples = hard()
    for index in (1, 4):
        samples[index].set_field(torch.tensor(0.25), 'sample_weight')
    build(name, sar=True).train().loss(features(name), samples)
    expected = [1, 0.25, 1, 1, 0.25, 1]
    assert [weight.tolist() for weight in seen] == dict(
        LinearClsHead=[expected], DeiTClsHead=[expected * 2], ConformerHead=[expected] * 2
    )[name]


# ----- Errors


def test_loss__explains_a_label_that_is_no_class(make_model, make_batch):
    model = make_model('cls', sar=True)
    images, samples = make_batch('cls')
    samples[2].set_gt_label(5)
    with pytest.raises(IndexError, match='the label 5 is no class of SARLinearClsHead, which has 5'):
        model.loss(images, samples)


def test_loss__leaves_other_index_errors_alone(make_model, make_batch):
    model = make_model('cls', sar=True)
    with pytest.raises(IndexError) as error:
        model.head.loss((), make_batch('cls')[1])
    assert 'label' not in str(error.value)
