"""Checks that a checkpoint is there, and one of the model that is to take its weights."""

import os.path as osp
import re
from typing import Any, Iterator, List, Tuple

from mmengine.runner import Runner
from torch import nn

from ..checks import UsageError
from ..engine.checks import check_resumed_anchors, unwrapped
from ..engine.safe_checkpoints import read_checkpoint

_STUDENT, _TEACHER = 'student.', 'teacher.module.'
# What a model has for its training alone, by the names that mmseg and mmpretrain give to such modules.
_UNUSED = re.compile(r'(^|\.)(anchor_head|auxiliary_head|loss(_\w+)?)\.')
# Buffers that the toolboxes compute when they build a model; some of their versions save them, others do not.
_CONSTANT = re.compile(r'(^|\.)(attn_mask|relative_position_index|relative_coords_table)$')
# What a checkpoint may have besides, in modules that the model has: what every mmseg head once had, what data
# preprocessors once saved, and what the authors' code adds to a stock head.
_EXTRA = re.compile(
    r'decode_head\.(\d+\.)?conv_seg\.|data_preprocessor\.'
    r'|decode_head\.(random_center|momentum_center_feat|update_flag|center_lbl|local_iter|projecter(_linear)?)(\.|$)'
)
_MOST_NAMES = 3  # of weights in a message


def check_checkpoint_path(path: str) -> None:
    """Raise a UsageError unless there is such a file or folder, or it lies elsewhere (``https://``, ``s3://``, ...)."""
    if '://' not in path and not osp.exists(osp.expanduser(path)):
        raise UsageError(f'there is no checkpoint {path}')


def check_checkpoint(runner: Runner, path: str, config: str, to_resume: bool) -> None:
    """Raise a UsageError unless the checkpoint is one of the runner's model, which takes its weights.

    mmengine loads what fits and only warns about the rest, and a test would report the accuracy of random weights, or
    of a part of a larger model. The checkpoint of a FlexibleRunner, which builds its model later, is not checked.

    Args:
        runner: The runner, or any object with a ``model`` and ``cfg``. With ``check_weights=False`` in the config, a
            test takes a checkpoint of a larger model.
        path: The checkpoint.
        config: Name of the config, for the message.
        to_resume: All keys have to be the same. Otherwise the checkpoint may have or lack what predictions do not use:
            anchor heads, auxiliary heads, buffers of losses, and the part of a semi-supervised model that does not
            predict; constants that some versions of the toolboxes save; and it may have modules that the model has not.
    """
    model = unwrapped(runner.model)
    if not isinstance(model, nn.Module):
        return
    # A ResumableRunner has read the one that it resumes.
    weights = getattr(runner, 'checkpoint', None) or read_checkpoint(path)
    weights = weights.get('state_dict', weights)
    weights = {re.sub(r'^module\.', '', name): weight for name, weight in weights.items()}
    if to_resume:
        check_resumed_anchors(model, dict(state_dict=weights))
        complaints = _misfits(model, weights, '', to_resume)
    else:
        complaints = []
        for prefix, part in _predicting_parts(model, runner):
            own = _below(prefix, weights)
            if prefix == _TEACHER:  # as a SemiModel loads it
                own = {**_below(_STUDENT, weights), **own}
            # What is not used is not loaded: its shapes do not matter.
            own = {name: weight for name, weight in own.items() if not _UNUSED.search(name)}
            if not getattr(runner, 'cfg', {}).get('check_weights', True):
                own = {name: weight for name, weight in own.items() if name in part.state_dict()}
            complaints += _misfits(part, own, prefix, to_resume)
    if complaints:
        raise UsageError(f'{path} is not a checkpoint of the model in {config}: {"; ".join(complaints)}')


def _predicting_parts(model: Any, runner: Runner) -> Iterator[Tuple[str, nn.Module]]:
    """Yield what predicts in a test, with the prefix of its weights: of a semi-supervised model, one part or both."""
    if not hasattr(model, 'predict_on'):
        yield '', model
        return
    test_cfg = getattr(runner, 'cfg', {}).get('test_cfg') or {}
    both = 'TeacherStudentValLoop' in str(test_cfg.get('type'))
    if both or model.predict_on == 'student':
        yield _STUDENT, model.student
    if getattr(model, 'teacher', None) is not None and (both or model.predict_on == 'teacher'):
        yield _TEACHER, model.teacher.module


def _below(prefix: str, weights: dict) -> dict:
    return {name[len(prefix) :]: weight for name, weight in weights.items() if name.startswith(prefix)}


def _misfits(model: nn.Module, weights: dict, prefix: str, to_resume: bool) -> List[str]:
    """Load the weights, and return what does not fit."""
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # shapes differ; the lines after the first name each
        return str(error).strip().splitlines()[1:2] or [str(error)]
    complaints = []
    if not to_resume:
        missing = [name for name in missing if not _UNUSED.search(name) and not _CONSTANT.search(name)]
        unexpected = [name for name in unexpected if not _EXTRA.match(name) and not _CONSTANT.search(name)]
        # A module that the model has not is one that only the training used; a larger one that it has is another model.
        own_modules = dict(model.named_children())
        unexpected = [name for name in unexpected if name.split('.')[0] in own_modules]
    if missing:
        complaints.append(
            f'{len(missing)} of its weights are missing in the checkpoint, such as {_some(missing, prefix)}'
        )
    if unexpected:
        complaints.append(
            f'{len(unexpected)} weights of the checkpoint are not in it, such as {_some(unexpected, prefix)}'
            + ('' if to_resume else '; if the rest is all that the model needs, set check_weights=False')
        )
    return complaints


def _some(names: List[str], prefix: str) -> str:
    return ', '.join(prefix + name for name in names[:_MOST_NAMES])
