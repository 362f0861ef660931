"""Turn a checkpoint of the authors' code (AAAI 2024) into one of this package, to test, fine-tune or resume.

    python tools/model_converters/from_aaai.py iter_40000.pth converted.pth --config sar_fcn_hr48.py

SRC is a segmentation checkpoint of the authors' repository, OUT the new one, CONFIG the config here of the same model:
it is built, and has to take the weights strictly. The predefined anchors are written next to OUT as a .npy file, which
the config needs to go on training with them: the tool prints the line. The optimizer's state goes along; learning
rates and schedules are those of CONFIG at the iteration of SRC. docs/from_the_authors_code.md has the names.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, Dict, List

from authors_names import is_authors_name, is_parameter, name_here

OPTIMIZER_OPTIONS = ('optimizer', 'paramwise_cfg', 'constructor')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', metavar='SRC', type=Path, help="a .pth file of the authors' code")
    parser.add_argument('out', metavar='OUT', type=Path, help='where to write the new one')
    parser.add_argument('--config', required=True, help='path of the config of the same model here')
    parser.add_argument(
        '--weights-only', action='store_true', help='leave out the optimizer and the schedules: it cannot be resumed'
    )
    return parser.parse_args()


def read(args: argparse.Namespace) -> Dict[str, Any]:
    """Return the checkpoint, with its weights under ``state_dict``; nothing in it is run."""
    import torch

    from sar_mm.checks import UsageError
    from sar_mm.engine.safe_checkpoints import read_checkpoint

    if not args.checkpoint.is_file():
        raise UsageError(f'there is no checkpoint {args.checkpoint}')
    if args.out.resolve() == args.checkpoint.resolve():
        raise UsageError(f'OUT is SRC itself, {args.out}: name another file')
    checkpoint = read_checkpoint(str(args.checkpoint), skip_unknown=True)
    if 'state_dict' not in checkpoint:
        checkpoint = dict(state_dict=checkpoint)
    weights = checkpoint['state_dict']
    if not isinstance(weights, dict) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise UsageError(f'{args.checkpoint} holds no weights: neither a state_dict nor tensors by name')
    weights = {name[len('module.') :] if name.startswith('module.') else name: w for name, w in weights.items()}
    for needed in ('random_center', 'momentum_center_feat', 'update_flag', 'projecter.conv.weight'):
        if not any(name.split('.', 1)[-1] == needed or name == needed for name in weights):
            raise UsageError(
                f"{args.checkpoint} is not a checkpoint of the authors' code: no name in it ends with {needed}"
            )
    return dict(checkpoint, state_dict=weights)


def convert_weights(weights: Dict[str, Any]) -> Dict[str, Any]:
    """Return the weights under the names and in the shapes that they have here."""
    converted = {name_here(name): weight for name, weight in weights.items() if name_here(name) is not None}
    head = 'decode_head.anchor_head.'
    anchors, average = (converted[f'{head}{name}'].float() for name in ('anchors', 'semantic_anchors'))
    started = converted[f'{head}initialized'].bool().any().float()
    converted[f'{head}anchors'] = anchors.reshape(-1, anchors.shape[-1])
    converted[f'{head}semantic_anchors'] = average.reshape(-1, average.shape[-1])
    converted[f'{head}initialized'] = started.repeat(len(converted[f'{head}anchors']))
    converted[f'{head}projector.6.weight'] = converted[f'{head}projector.6.weight'].flatten(1)
    return converted


def build_model(cfg: Any, config: str, weights: Dict[str, Any]) -> Any:
    """Build the model of the config with the predefined anchors of the weights, and load them strictly."""
    import numpy as np
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, DefaultScope

    from sar_mm.checks import UsageError

    head = cfg.model.get('decode_head')
    if not isinstance(head, dict) or not str(head.get('type')).rpartition('.')[2].startswith('SAR'):
        raise UsageError(f"{config}: model.decode_head is to be one head with anchors, such as type='SARFCNHead'")
    options = head.get('anchor_head') or {}
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/anchors.npy'
        np.save(path, weights['decode_head.anchor_head.anchors'].numpy())
        head.anchor_head = dict(options, anchors=dict(type='EmbeddingAnchors', path=path))
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            model = revert_sync_batchnorm(MODELS.build(cfg.model))
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:  # a line for each kind of misfit, after the first
        raise UsageError(
            f'{config} is not the config of the same model: {" ".join(str(error).split()[:60])}'
        ) from error
    return model


def parameter_names(checkpoint: Dict[str, Any]) -> List[str]:
    """Return the names here of the parameters in their optimizer, in its order: that of the names in the checkpoint."""
    from sar_mm.checks import UsageError

    names = [name_here(name) for name in checkpoint['state_dict'] if is_parameter(name)]
    number = sum(len(group['params']) for group in checkpoint['optimizer']['param_groups'])
    if number != len(names):
        raise UsageError(
            f"the checkpoint's optimizer has {number} parameters, but its model has {len(names)}: "
            'convert it with --weights-only, and start a run from it with load_from'
        )
    return names


def convert_training(checkpoint: Dict[str, Any], model: Any, cfg: Any, config: str) -> Dict[str, Any]:
    """Return ``optimizer`` and ``param_schedulers`` of the config at the checkpoint's iteration, with its state."""
    from mmengine.optim import build_optim_wrapper

    from sar_mm.checks import UsageError

    theirs, meta = checkpoint['optimizer'], checkpoint['meta']
    names = parameter_names(checkpoint)
    # Not the wrapper of mixed precision, which needs a GPU: its loss scale starts anew.
    options = {name: cfg.optim_wrapper[name] for name in OPTIMIZER_OPTIONS if name in cfg.optim_wrapper}
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', **options))
    if ('betas' in theirs['param_groups'][0]) != ('betas' in wrapper.param_groups[0]):
        raise UsageError(
            f'{config} has the optimizer {type(wrapper.optimizer).__name__}, whose state is another one than that in '
            'the checkpoint: set optim_wrapper.optimizer to the one of that run, or use --weights-only'
        )
    schedulers = advance_schedules(cfg, wrapper, meta)
    optimizer = wrapper.state_dict()
    parameters = dict(model.named_parameters())
    places = {id(each): place for place, each in enumerate(each for g in wrapper.param_groups for each in g['params'])}
    indices = [index for group in theirs['param_groups'] for index in group['params']]
    state = {}
    for index, name in zip(indices, names):
        parameter = parameters[name]
        if index in theirs['state']:
            state[places[id(parameter)]] = {
                key: value.reshape(parameter.shape) if getattr(value, 'numel', int)() == parameter.numel() else value
                for key, value in theirs['state'][index].items()
            }
    rates = theirs['param_groups'][0]['lr'], wrapper.param_groups[0]['lr']
    print(f'learning rate: {rates[0]:.4g} in the last step of the checkpoint, {rates[1]:.4g} in the next of the config')
    return dict(optimizer=dict(optimizer, state=state), param_schedulers=[each.state_dict() for each in schedulers])


def advance_schedules(cfg: Any, wrapper: Any, meta: Dict[str, Any]) -> List[Any]:
    """Build the schedules of the config, and step them to the checkpoint's place in the run."""
    from mmengine.registry import PARAM_SCHEDULERS

    from sar_mm.checks import UsageError

    settings = cfg.get('param_scheduler') or []
    settings = settings if isinstance(settings, (list, tuple)) else [settings]
    if any(setting.get('convert_to_iter_based') for setting in settings):
        raise UsageError(
            'param_scheduler.convert_to_iter_based=True needs the number of batches: give the schedule by iterations '
            'with by_epoch=False, or use --weights-only'
        )
    schedulers = [PARAM_SCHEDULERS.build(dict(setting), default_args=dict(optimizer=wrapper)) for setting in settings]
    for scheduler in schedulers:
        for _ in range(meta['epoch' if scheduler.by_epoch else 'iter']):
            scheduler.step()
    return schedulers


def convert_meta(source: Dict[str, Any]) -> Dict[str, Any]:
    """Return what is kept of ``meta``, with the number of steps done as ``iter``.

    mmcv 1.x's IterBasedRunner, which trains mmseg's models unless the config names another one, saves a checkpoint
    before it counts the step: ``meta.iter`` of iter_40000.pth is 39999. Its EpochBasedRunner saves after the last step
    of an epoch is counted.
    """
    meta = {name: source[name] for name in ('epoch', 'iter', 'seed') if source.get(name) is not None}
    if 'iter' in meta and 'EpochBasedRunner' not in str(source.get('config')):
        meta['iter'] += 1
    named = dict(classes=source.get('CLASSES'), palette=source.get('PALETTE'))
    meta['dataset_meta'] = {name: value for name, value in named.items() if value is not None}
    return meta


def main() -> None:
    args = parse_args()

    import numpy as np
    import torch

    from sar_mm.checks import UsageError
    from sar_mm.cli.config import load_config
    from sar_mm.cli.errors import report_errors

    anchors_file = args.out.with_suffix('.npy')
    with report_errors():
        given = dict(config=args.config, cfg_options=None, launcher='none', local_rank=0, work_dir=None)
        cfg = load_config(argparse.Namespace(**given))
        checkpoint = read(args)
        weights = convert_weights(checkpoint['state_dict'])
    with report_errors(cfg):
        model = build_model(cfg, args.config, weights)
        meta = convert_meta(checkpoint.get('meta') or {})
        converted = dict(meta=meta, state_dict=weights)
        if not args.weights_only:
            missing = [name for name in ('epoch', 'iter') if name not in meta] + ['optimizer'] * (
                'optimizer' not in checkpoint
            )
            if missing:
                raise UsageError(f'{args.checkpoint} has no {" and no ".join(missing)} to resume: add --weights-only')
            converted.update(convert_training(dict(checkpoint, meta=meta), model, cfg, args.config))
            converted['message_hub'] = dict(log_scalars={}, runtime_info={}, resumed_keys={})
        args.out.parent.mkdir(parents=True, exist_ok=True)
        np.save(anchors_file, weights['decode_head.anchor_head.anchors'].numpy())
        torch.save(converted, args.out)
    dropped = sum(is_authors_name(name) and name_here(name) is None for name in checkpoint['state_dict'])
    print(f'{len(weights)} tensors converted, {dropped} dropped; {args.config} takes all of them')
    anchors = f"anchors=dict(type='EmbeddingAnchors', path={str(anchors_file)!r})"
    print('To go on training, set in the config:')
    print(f'  model = dict(decode_head=dict(anchor_head=dict({anchors})))')
    print(f'and load_from={str(args.out)!r}' + ('' if args.weights_only else f', or --resume {args.out}'))


if __name__ == '__main__':
    main()
