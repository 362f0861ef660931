"""SAR versions of mmpretrain's heads, fed with features directly."""

import pytest
import torch

pytest.importorskip('mmpretrain.models')

from mmpretrain.structures import DataSample  # noqa: E402

from sar_mm.models.heads import cls_heads  # noqa: E402

HEADS = dict(
    linear=('SARLinearClsHead', dict(num_classes=4, in_channels=6)),
    vit=('SARVisionTransformerClsHead', dict(num_classes=4, in_channels=6)),
    vit_hidden=('SARVisionTransformerClsHead', dict(num_classes=4, in_channels=10, hidden_dim=6)),
)
LABELS = [0, 3, 3, 1, 2, 0]


@pytest.fixture(params=HEADS)
def head(request, open_gate):
    """A SAR head with an open gate; six features in front of its classifier, its input."""
    name, options = HEADS[request.param]
    torch.manual_seed(0)
    head = getattr(cls_heads, name)(**options)
    head.init_weights()
    open_gate(head)
    feats = (torch.randn(len(LABELS), options['in_channels'], requires_grad=True),)
    return head, feats, head.pre_logits(feats).detach()


def hard(labels=LABELS):
    return [DataSample().set_gt_label(label) for label in labels]


def soft(scores):
    return [DataSample().set_gt_label(label).set_gt_score(score) for label, score in zip(LABELS, scores)]


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


def test_loss__one_hot_scores_equal_hard_labels(head):
    head, feats, _ = head
    expected = head.loss(feats, hard())
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 4).float()
    losses = head.loss(feats, soft(one_hot))
    assert list(losses) == list(expected)
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])


def test_loss__mixup_pulls_to_the_mixture(head):
    head, feats, feature = head
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 4).float()
    scores = 0.7 * one_hot + 0.3 * one_hot.flip(0)
    losses = head.loss(feats, soft(scores))
    anchors = head.anchor_head.semantic_anchors
    centre = torch.stack([0.7 * anchors[a] + 0.3 * anchors[b] for a, b in zip(LABELS, LABELS[::-1])])
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * (feature - centre).square().mean())
    losses['loss_pull'].backward()
    assert feats[0].grad.abs().sum() > 0


def test_loss__batch_augments_of_the_model(make_model, make_batch, sar_heads, open_gate):
    from mmpretrain.models.utils import RandomBatchAugment

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


def test_loss__momentum_of_the_second_step(head):
    head, feats, _ = head
    head.anchor_head.momentum = 0.75
    head.loss(feats, hard())
    first = head.anchor_head.semantic_anchors.clone()
    with torch.no_grad():
        head.anchor_head.projector[7].bias.add_(0.5)  # every embedded anchor grows
    second = head.anchor_head.projector(head.anchor_head.anchors).detach()
    head.anchor_head.gate = 0.01
    losses = head.loss(feats, hard())
    assert losses['anchor_gate'] == 1 and not torch.equal(first, second)
    torch.testing.assert_close(head.anchor_head.semantic_anchors, 0.75 * first + 0.25 * second)
