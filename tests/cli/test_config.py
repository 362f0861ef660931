import argparse
from collections import OrderedDict

import pytest
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope

from sar_mm.checks import UsageError
from sar_mm.cli.config import build_runner, load_config, read_options, warn_of_unread_keys
from sar_mm.engine.safe_checkpoints import CheckpointError


@MODELS.register_module()
class CLITestConfigModel(BaseModel):
    def forward(self, inputs, mode='tensor'):
        return inputs


def arguments(config, cfg_options=None, work_dir=None, launcher='none'):
    given = dict(cfg_options=cfg_options, work_dir=work_dir, launcher=launcher, local_rank=0)
    return argparse.Namespace(config=str(config), **given)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text("model = dict(type='A', depth=3)\npipeline = [dict(type='B')]\n")
    return path


def test_load_config__arguments_are_merged(config):
    cfg = load_config(arguments(config, ['model.depth=5', 'pipeline.0.scale=2'], launcher='slurm'))
    assert (cfg.model.depth, cfg.pipeline[0].scale, cfg.launcher, cfg.work_dir) == (5, 2, 'slurm', 'work_dirs/small')
    assert load_config(arguments(config, work_dir='here')).work_dir == 'here'
    config.write_text("work_dir = 'there'")
    assert load_config(arguments(config)).work_dir == 'there'


@pytest.mark.parametrize(
    'option, message',
    [
        ('pipeline.3.scale=2', r'^--cfg-options pipeline.3.scale: they do not fit the config: Index 3 exceeds'),
        ('model.depth.value=2', r'^--cfg-options model.depth.value: they do not fit the config: depth='),
    ],
)
def test_load_config__options_that_do_not_fit(config, option, message):
    with pytest.raises(UsageError, match=message):
        load_config(arguments(config, [option]))


@pytest.mark.parametrize(
    'given, expected',
    [
        (None, {}),
        ([], {}),
        (dict(a=1), dict(a=1)),
        (['a.b=1', 'c=[1,2]', 'd=x=y', 'a.b=2'], {'a.b': 2, 'c': [1, 2], 'd': 'x=y'}),
    ],
)
def test_read_options__as_mmengine_does(given, expected):
    assert read_options(given) == expected


def test_read_options__without_a_value(config):
    with pytest.raises(UsageError, match='^--cfg-options model.depth: expected KEY=VALUE'):
        load_config(arguments(config, ['model.depth', '5']))


def test_load_config__files_that_are_no_configs(config, tmp_path):
    with pytest.raises(UsageError, match='^there is no config .*absent.py'):
        load_config(arguments(tmp_path / 'absent.py'))
    config.write_text('model = dict(')
    with pytest.raises(UsageError, match='small.py cannot be read: syntax error in it or a `_base_`: .* never closed'):
        load_config(arguments(config))
    config.write_text('model = depth')
    with pytest.raises(NameError):  # its traceback names the line
        load_config(arguments(config))


@pytest.mark.parametrize(
    'cfg, given, message',
    [
        (dict(custom_hook=[1]), (), 'nothing reads custom_hook in the config; did you mean custom_hooks?'),
        (dict(_base=''), (), 'nothing reads _base in the config; did you mean _base_?'),
        (
            dict(),
            ['modle.a'],
            '--cfg-options modle: neither the config nor a runner has this key; did you mean model?',
        ),
        (dict(), ['my_flag'], '--cfg-options my_flag: neither the config nor a runner has this key'),
        (dict(models=dict(), train_pipeline=[], lr=1), ['lr', 'compile', 'env_cfg.cudnn', 'resume'], None),
    ],
)
def test_warn_of_unread_keys(cfg, given, message, capsys):
    warn_of_unread_keys(Config(dict(model=dict(), **cfg)), given)
    assert capsys.readouterr().err == ('' if message is None else f'warning: {message}\n')


def test_build_runner__what_no_runner_can_do_without(tmp_path):
    with pytest.raises(UsageError, match='^the config has no `model`'):
        build_runner(Config(dict(work_dir=str(tmp_path))))
    (tmp_path / 'file').write_text('')
    with pytest.raises(CheckpointError, match='work_dir=.*cannot be written'):
        build_runner(Config(dict(work_dir=str(tmp_path / 'file' / 'run'), model=dict())))


@pytest.mark.parametrize('runner_type', [None, 'Runner', 'FlexibleRunner'])
def test_build_runner__a_monitor_that_is_switched_off(runner_type, tmp_path, monkeypatch):
    """mmengine's own runners take no None but of their own hooks."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    kind = {} if runner_type is None else dict(runner_type=runner_type)
    hooks = dict(anchor_monitor=None, timer=None)
    cfg = dict(model=dict(type='CLITestConfigModel'), work_dir=str(tmp_path), default_hooks=hooks, **kind)
    name = dict(experiment_name=f'{tmp_path.name}{runner_type}', env_cfg=dict(dist_cfg=dict()))
    runner = build_runner(Config(dict(cfg, **name)))
    names = [type(hook).__name__ for hook in runner.hooks]
    assert 'LoggerHook' in names and not {'AnchorMonitorHook', 'IterTimerHook'} & set(names)
