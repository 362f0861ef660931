"""Why the gate of semantic anchors is shut, and what to do about it."""

import math
from typing import Any, Iterator, List

import torch.nn.functional as F
from mmengine.runner import Runner

from .checks import unwrapped

MOST_NAMES = 10  # of the classes that keep a gate shut
CLOSE = 0.9  # cosine of two predefined anchors around their mean, from which on they are hard to tell apart


def shut_classes(head: Any, steps: int = 0) -> List[int]:
    """Return the classes whose anchors did not open the gate in the last step, wrong ones first, then by confidence.

    With a gate per class, only those whose gate was open in none of the last ``steps``.
    """
    is_open = (head.right > 0) & (head.confidence > head.gate_threshold)
    if head.gate_per_class:
        is_open |= head.steps_shut < steps
    order = sorted(range(len(is_open)), key=list(zip(head.right.tolist(), head.confidence.tolist())).__getitem__)
    is_open = is_open.tolist()
    return [k for k in order if not is_open[k]]


def explain_gate(runner: Runner, name: str, head: Any, classes: List[str], steps: int = 0) -> str:
    """Return which classes keep the gate of a head shut, and a line for each thing to do.

    Args:
        runner: The runner, whose model has the head.
        name: What to call the head.
        head: A SemanticAnchorHead whose gate was shut in the last step.
        classes: The names of its classes.
        steps: See :func:`shut_classes`.
    """
    shut = shut_classes(head, steps)
    named = [f'{classes[k]} ({_score(head, k)})' for k in shut[:MOST_NAMES]]
    more = f' and {len(shut) - MOST_NAMES} more' if len(shut) > MOST_NAMES else ''
    which = 'gates of some classes' if head.gate_per_class else 'gate'
    needed = 'its anchor is' if head.gate_per_class else 'every anchor is'
    text = (
        f'the {which} of {name} stayed shut: features are not pulled to their anchors there. A gate opens when {needed}'
        f' classified right with a probability above {head.gate_threshold}, but {len(shut)} of {len(classes)} are not: '
        f'{", ".join(named)}{more}. What to do:'
    )
    return '\n'.join([text, *(f'  - {line}' for line in _advice(runner, head, shut, classes))])


def _score(head: Any, k: int) -> str:
    confidence = math.floor(100 * head.confidence[k].item()) / 100  # not up to the threshold
    return f'{confidence:.2f}' + ('' if head.right[k] else ', another class has more')


def _advice(runner: Runner, head: Any, shut: List[int], classes: List[str]) -> Iterator[str]:
    """Yield what to do, what certainly keeps the gate shut first."""
    loss = head.loss_module
    causes = [*_idle_layers(runner, head)]
    if getattr(loss, 'anchor_weight', None) == 0:
        causes.append('anchor_head.loss.anchor_weight is 0, so that no loss teaches the anchors: set it to 1.0')
    limit = getattr(loss, 'confidence_threshold', None)
    if limit is not None and limit < head.gate_threshold:
        causes.append(
            f'anchors leave the loss at a probability of {limit} (anchor_head.loss.confidence_threshold), before the '
            f'gate opens at {head.gate_threshold}: set it to more than gate_threshold'
        )
    causes += _close_anchors(head, shut, classes)
    yield from causes
    others = len(classes) - len(shut)
    if others >= len(shut) and not head.gate_per_class:
        yield f'set anchor_head.gate_per_class=True: the other {others} classes are pulled from then on'
    lowest = min(head.confidence[k].item() for k in shut)
    threshold = math.floor(lowest * 20 - 1e-6) / 20
    if all(head.right[k] for k in shut) and threshold >= 0.2:
        yield f'set anchor_head.gate_threshold={threshold:g}: with it, the gate would be open now'
    if not causes:
        yield (
            'if anchor_conf still rises in the log, wait; if not, raise anchor_head.loss.anchor_weight or the learning '
            'rate of the head (docs/reading_the_log.md)'
        )


def _idle_layers(runner: Runner, head: Any) -> Iterator[str]:
    """Yield a line for the classifier and the projector if their weights are frozen, or have a learning rate of 0."""
    parents = [each for each in unwrapped(runner.model).modules() if hasattr(each, 'classifier_layers')]
    parents = [each for each in parents if any(part is head for part in each.anchor_head.modules())]
    layers = {'the classifier of the head': [layer for each in parents for layer in each.classifier_layers]}
    layers['the projector of the anchors'] = [head.projector]
    rates = {id(weight): group['lr'] for group in _groups(runner.optim_wrapper) for weight in group['params']}
    for what, modules in layers.items():
        weights = [weight for module in modules for weight in module.parameters()]
        if weights and not any(weight.requires_grad for weight in weights):
            yield f'{what} is frozen, and cannot learn to classify the anchors: train it (requires_grad, paramwise_cfg)'
        elif weights and all(rates.get(id(weight), 1.0) == 0 for weight in weights):
            yield f'the learning rate of {what} is 0: check lr_mult in paramwise_cfg and the warmup in param_scheduler'


def _groups(wrapper: Any) -> List[dict]:
    groups = getattr(wrapper, 'param_groups', [])  # of several optimizers, a dict of lists
    return [each for part in groups.values() for each in part] if isinstance(groups, dict) else list(groups)


def _close_anchors(head: Any, shut: List[int], classes: List[str]) -> Iterator[str]:
    """Yield a line if predefined anchors of these classes are nearly those of other classes."""
    shut = shut[:MOST_NAMES]
    # Around their mean, which the projector's first normalization takes away.
    unit = F.normalize(head.anchors.float() - head.anchors.float().mean(dim=0), dim=1)
    cosine = unit[shut] @ unit.t()
    cosine[range(len(shut)), shut] = -1
    values, nearest = (each.tolist() for each in cosine.max(dim=1))
    pairs = {frozenset((k, j)): value for k, j, value in zip(shut, nearest, values) if value > CLOSE}
    named = [f'{" and ".join(classes[k] for k in sorted(pair))} ({value:.2f})' for pair, value in pairs.items()]
    if named:
        yield (
            f'predefined anchors lie close to each other, by the cosine around their mean: {", ".join(named)}; take '
            "other words or another text model for EmbeddingAnchors, or anchors=dict(type='GaussianAnchors')"
        )
