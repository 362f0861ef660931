"""Losses of SAR classification heads: the formulas of linear and ViT heads, weights of samples, and errors."""

import pytest
import torch
from cls_parts import LABELS, build, features, hard, joined

pytest.importorskip('mmpretrain.models')

from mmpretrain.models.utils import RandomBatchAugment  # noqa: E402

from sar_mm.models import SemanticAnchorHead  # noqa: E402

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
