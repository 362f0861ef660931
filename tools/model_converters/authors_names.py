"""Names of the tensors that the authors' code (AAAI 2024) adds to a checkpoint, and those that they have here."""

from typing import Optional

# On the segmentor or under `decode_head.` there, under `decode_head.anchor_head.` here.
_BUFFERS = dict(random_center='anchors', momentum_center_feat='semantic_anchors', update_flag='initialized')
# `projecter_linear` is Linear-BN-ReLU twice, `projecter` a ConvModule with a 1x1 convolution and no bias.
_LAYERS = {f'projecter_linear.{index}': f'projector.{index}' for index in (0, 1, 3, 4)}
_LAYERS.update({'projecter.conv': 'projector.6', 'projecter.bn': 'projector.7'})
# A count and labels that the formulas do not need; the projector's batch norms always take the batch's statistics.
_DROPPED = ('center_lbl', 'local_iter')
_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')
_TOP = {*_BUFFERS, *_DROPPED, *(layer.split('.')[0] for layer in _LAYERS)}


def is_authors_name(name: str) -> bool:
    """Tell whether a tensor of this name is one that the authors' code adds to the stock model's."""
    parts = name.split('.')
    return parts[0] in _TOP or (parts[0] == 'decode_head' and parts[1] in _TOP)


def name_here(name: str) -> Optional[str]:
    """Return the name that a tensor of the authors' checkpoints has here, None where there is no such tensor."""
    if not is_authors_name(name):
        return name
    own = name[len('decode_head.') :] if name.startswith('decode_head.') else name
    layer, _, kind = own.rpartition('.')
    if own in _BUFFERS:
        return f'decode_head.anchor_head.{_BUFFERS[own]}'
    if layer in _LAYERS and kind not in _STATISTICS:
        return f'decode_head.anchor_head.{_LAYERS[layer]}.{kind}'
    return None


def is_parameter(name: str) -> bool:
    """Tell whether a tensor of this name in the authors' checkpoints is one that the optimizer has."""
    return name.split('.')[-1] not in (*_BUFFERS, *_DROPPED, *_STATISTICS)
