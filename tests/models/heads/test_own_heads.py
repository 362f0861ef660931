"""SAR versions of a user's own head: which feature they take, and the errors where they cannot find it."""

import copy

import pytest
import torch

from sar_mm.models.heads import with_semantic_anchors
from sar_mm.ops import nearest_labels, pull_loss


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
