from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sar_mm.engine.gate_advice import explain_gate, shut_classes
from sar_mm.models import SemanticAnchorHead

K, C = 4, 6
NAMES = ['cat', 'dog', 'owl', 'bee']
RIGHT = [0.9, 0.95, 0.62, 0.85]  # of which one is below the gate's threshold
WAIT = 'if anchor_conf still rises in the log, wait'


class Head(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.fc = nn.Linear(C, K)
        self.anchor_head = SemanticAnchorHead(K, C, **options)
        self.classifier_layers = [self.fc]


def make(confidence=RIGHT, wrong=(), **options):
    head = Head(**options)
    head.anchor_head.confidence.copy_(torch.tensor(confidence))
    head.anchor_head.right.copy_(torch.tensor([k not in wrong for k in range(K)]))
    return head


def explain(head, groups=None):
    groups = [dict(params=list(head.parameters()), lr=0.1)] if groups is None else groups
    runner = SimpleNamespace(model=nn.Sequential(head), optim_wrapper=SimpleNamespace(param_groups=groups))
    first, *rest = explain_gate(runner, 'head', head.anchor_head, NAMES).splitlines()
    assert all(line.startswith('  - ') for line in rest)
    return first, [line[4:] for line in rest]


@pytest.mark.parametrize(
    'confidence, wrong, threshold, expected',
    [
        (RIGHT, (), 0.8, [2]),
        ([0.9, 0.1, 0.62, 0.3], (3,), 0.8, [3, 1, 2]),  # wrong ones first
        ([0.45, 0.4, 0.5, 0.6], (1,), 0.3, [1]),  # above the threshold, but wrong
        ([0.8, 0.81, 0.9, 0.9], (), 0.8, [0]),
        ([0.9] * K, (), 0.8, []),
    ],
)
def test_shut_classes__are_those_that_the_gate_waits_for(confidence, wrong, threshold, expected):
    assert shut_classes(make(confidence, wrong, gate_threshold=threshold).anchor_head) == expected


def test_shut_classes__agree_with_the_gate_of_a_step():
    head = SemanticAnchorHead(K, C, gate_per_class=True, gate_threshold=0.3)
    logits = torch.tensor([[2.0, 0, 0, 0], [1.5, 1.4, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 0.2]])
    losses = head.loss(torch.randn(5, C), torch.zeros(5, dtype=torch.long), lambda x: logits + 0 * x.sum())
    assert shut_classes(head) == [1, 3] and losses['anchor_gate'] == 0.5
    before = head.confidence.clone()
    head.eval().loss(torch.randn(5, C), torch.zeros(5, dtype=torch.long), lambda x: -logits + 0 * x.sum())
    assert torch.equal(head.confidence, before) and 'confidence' not in head.state_dict()


def test_explain__one_stubborn_class():
    text, lines = explain(make())
    assert text == (
        'the gate of head stayed shut: features are not pulled to their anchors there. A gate opens when every anchor '
        'is classified right with a probability above 0.8, but 1 of 4 are not: owl (0.62). What to do:'
    )
    assert lines[0].startswith('set anchor_head.gate_per_class=True: the other 3 classes')
    assert lines[1].startswith('set anchor_head.gate_threshold=0.6: with it')
    assert lines[2].startswith(WAIT) and len(lines) == 3


def test_explain__most_classes_are_wrong():
    text, lines = explain(make([0.2, 0.2, 0.25, 0.1], wrong=(0, 1, 3)))
    assert 'bee (0.10, another class has more), cat (0.20, another class has more)' in text and 'owl (0.25)' in text
    assert [line[: len(WAIT)] for line in lines] == [WAIT]


@pytest.mark.parametrize('part', ['classifier', 'projector'])
@pytest.mark.parametrize('is_frozen', [True, False])
def test_explain__layers_that_do_not_learn(part, is_frozen):
    head = make()
    idle = head.fc if part == 'classifier' else head.anchor_head.projector
    groups = None
    if is_frozen:
        idle.requires_grad_(False)
    else:
        theirs = set(idle.parameters())
        rest = [weight for weight in head.parameters() if weight not in theirs]
        groups = [dict(params=list(theirs), lr=0.0), dict(params=rest, lr=0.1)]
    _, lines = explain(head, groups)
    name = dict(classifier='the classifier of the head', projector='the projector of the anchors')[part]
    expected = f'{name} is frozen' if is_frozen else f'the learning rate of {name} is 0'
    assert lines[0].startswith(expected) and not any(WAIT in line or 'learning rate' in line for line in lines[1:])


def test_explain__several_optimizers():
    head = make()
    groups = dict(a=[dict(params=list(head.fc.parameters()), lr=0.0)], b=[dict(params=[], lr=0.1)])
    assert explain(head, groups)[1][0].startswith('the learning rate of the classifier of the head is 0')


@pytest.mark.parametrize(
    'options, expected',
    [
        (dict(loss=dict(anchor_weight=0.0)), 'anchor_head.loss.anchor_weight is 0'),
        (dict(loss=dict(confidence_threshold=0.7)), 'anchors leave the loss at a probability of 0.7'),
        (dict(loss=dict(confidence_threshold=None)), None),
        (dict(gate_threshold=0.95), 'anchors leave the loss at a probability of 0.9'),
    ],
)
def test_explain__options_that_keep_a_gate_shut(options, expected):
    _, lines = explain(make(**options))
    assert (lines[0].startswith(expected) and WAIT not in lines[-1]) if expected else lines[-1].startswith(WAIT)


def test_explain__predefined_anchors_too_close():
    head = make()
    anchors = torch.randn(K, C, generator=torch.Generator().manual_seed(0))
    anchors[3] = anchors[2] + 0.01
    head.anchor_head.anchors = anchors + 5  # as texts: all in about the same direction
    _, lines = explain(head)
    assert lines[0].startswith('predefined anchors lie close to each other') and 'owl and bee (1.00);' in lines[0]
    assert 'cat' not in lines[0]


def test_explain__gates_per_class():
    text, lines = explain(make(gate_per_class=True))
    assert 'the gates of some classes of head stayed shut' in text and 'A gate opens when its anchor is' in text
    assert not any('gate_per_class' in line for line in lines)


def test_explain__names_ten_classes_at_most():
    head = SemanticAnchorHead(30, C)
    runner = SimpleNamespace(model=nn.Sequential(head), optim_wrapper=None)
    text = explain_gate(runner, 'head', head, [f'c{k}' for k in range(30)])
    assert '30 of 30 are not: c0 (0.00' in text and 'and 20 more' in text and 'c10 ' not in text
