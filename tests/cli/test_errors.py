import logging
import pickle
import sys

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch import nn

import sar_mm.models  # noqa: F401
from sar_mm.checks import UsageError, check
from sar_mm.cli.errors import help_for, options_of, parts_of, report_errors
from sar_mm.engine.safe_checkpoints import CheckpointError
from sar_mm.models import SARLoss


def printed(capsys, error, cfg=None):
    """Return the exit code after an error, and what was printed."""
    with pytest.raises(SystemExit) as exit_, report_errors(cfg):
        raise error
    output = capsys.readouterr()
    assert output.out == ''
    return exit_.value.code, output.err


def help_after(cfg, build):
    with pytest.raises(Exception) as error:
        build(Config(cfg))
    return help_for(error.value, Config(cfg))


@pytest.mark.parametrize('error', [UsageError('there is no image'), CheckpointError('there is no image')])
@pytest.mark.parametrize('rank, start', [('0', 'error: '), ('3', 'error of rank 3: ')])
def test_report_errors__a_usage_error_is_one_sentence(error, rank, start, monkeypatch, capsys):
    monkeypatch.setenv('RANK', rank)
    assert printed(capsys, error) == (2, f'\n{start}there is no image\n')


def test_report_errors__any_other_error_has_its_traceback_first(monkeypatch, capsys):
    monkeypatch.delenv('RANK', raising=False)
    code, text = printed(capsys, RuntimeError('shapes differ'))
    assert code == 1 and text.startswith('\nTraceback (most recent call last):\n')
    assert 'test_errors.py' in text and text.endswith('RuntimeError: shapes differ\n')
    cfg = Config(dict(model=dict(type='SARLos')))
    code, text = printed(capsys, KeyError('SARLos is not in the model registry'), cfg)
    *_, error, advice = text.splitlines()
    assert code == 1 and error.startswith("KeyError: 'SARLos") and advice.startswith("help: model.type='SARLos' is not")


@pytest.mark.parametrize('error, is_traceback', [(UsageError('no image'), False), (RuntimeError('no image'), True)])
def test_report_errors__the_log_file_has_it_once(error, is_traceback, tmp_path, capsys):
    logger = MMLogger.get_instance(f'cli{is_traceback}', log_file=str(tmp_path / 'run.log'))
    try:
        printed(capsys, error)
        log = (tmp_path / 'run.log').read_text()
    finally:
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()
        del MMLogger._instance_dict[f'cli{is_traceback}']
    assert log.count('no image') == 1
    assert ('Traceback' in log) == is_traceback


def test_report_errors__no_error_and_an_exit_pass():
    with report_errors():
        pass
    with pytest.raises(SystemExit, match='7'), report_errors():
        sys.exit(7)


@pytest.mark.parametrize(
    'name, value, place',
    [
        ('momentum', 2, 'model.head.anchor_head.momentum'),
        ('anchor_head.channels', 7, 'model.head.anchor_head.channels'),
        ('many', 5, 'val_evaluator.0.many and val_evaluator.1.many'),
        ('by_epoch', 'no', 'by_epoch'),
        ('momentum', 3, None),  # of no part
        ('nothing', 2, None),
    ],
)
def test_report_errors__a_usage_error_has_the_place_of_its_argument(name, value, place, capsys):
    head = dict(type='SARLinearClsHead', anchor_head=dict(momentum=2, channels=7))
    cfg = dict(model=dict(head=head, momentum=0.1), val_evaluator=[dict(many=5), dict(many=5)], by_epoch='no')
    with pytest.raises(UsageError) as error:
        check(False, name, value, 'another one')
    place = '' if place is None else f' (in the config: {place})'
    message = f'error: Expected argument `{name}` to be another one, but got {value!r}{place}'
    assert printed(capsys, error.value, Config(cfg)) == (2, f'\n{message}\n')


def test_usage_error__is_a_value_error_that_can_be_sent_to_another_process():
    error = pickle.loads(pickle.dumps(UsageError('no', 'momentum', float('inf'))))
    assert isinstance(error, ValueError) and (str(error), error.argument, error.value) == (
        'no',
        'momentum',
        float('inf'),
    )


HOUSES = Registry('house')


class Wall:
    def __init__(self, height, colour='white'):
        pass


@HOUSES.register_module()
class Room(Wall):
    def __init__(self, doors=1, **kwargs):
        super().__init__(**kwargs)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(height=1, color='red'), 'cellar.color: Room has no option color; did you mean colour?'),
        (dict(height=1, x=2), 'cellar.x: Room has no option x; it has doors, height, colour'),
        (dict(hight=1), 'cellar.hight: Room has no option hight; did you mean height?'),
        (dict(colour='red'), ''),  # Python's message says it all
    ],
)
def test_help_for__unknown_options(options, message):
    assert help_after(dict(cellar=dict(type=Room, **options)), lambda cfg: HOUSES.build(cfg.cellar)) == message


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(pull_weight=0.5), 'pull_weight: SemanticAnchorHead has no option pull_weight; set {}.loss.pull_weight'),
        (
            dict(loss=dict(gate_threshold=0.5)),
            'loss.gate_threshold: SARLoss has no option gate_threshold; set {}.gate_threshold',
        ),
        (dict(dim=64), 'dim: SemanticAnchorHead has no option dim; set {}.anchors.dim'),
        (
            dict(anchors=dict(pull_weight=1)),
            'anchors.pull_weight: GaussianAnchors has no option pull_weight; it has dim,',
        ),
    ],
)
def test_help_for__options_at_the_wrong_level(options, message):
    from sar_mm.registry import MODELS

    cfg = dict(model=dict(anchor_head=options))
    found = help_after(
        cfg, lambda cfg: MODELS.build(dict(type='SemanticAnchorHead', num_classes=3, channels=8, **options))
    )
    assert found.startswith(f'model.anchor_head.{message}'.format('model.anchor_head'))


@pytest.mark.parametrize(
    'kind, message',
    [
        ('SARLos', "model.0.type='SARLos' is not registered; did you mean SARLoss"),
        ('sarmm.SARLos', "model.0.type='sarmm.SARLos' is not registered; did you mean SARLoss"),
        (
            'my.Xyzzy',
            "model.0.type='my.Xyzzy' is not registered; put its module into custom_imports and on PYTH",
        ),
    ],
)
def test_help_for__unknown_types(kind, message):
    cfg = dict(default_scope='mmseg', model=[dict(type=kind)], other=dict(type='pixels'))
    assert help_after(cfg, lambda cfg: HOUSES.build(cfg.model[0])).startswith(message)


def test_help_for__modules_that_cannot_be_imported(tmp_path, monkeypatch):
    (tmp_path / 'config.py').write_text("custom_imports = dict(imports=['my_heads'])")
    with pytest.raises(ImportError) as error:
        Config.fromfile(tmp_path / 'config.py')
    assert help_for(error.value) == (
        'cannot import my_heads: install it, or put the folder that it is in on PYTHONPATH'
    )
    with pytest.raises(ImportError) as error:
        import sar_mm.model  # noqa: F401
    assert help_for(error.value).endswith('on PYTHONPATH; did you mean sar_mm.models?')


def test_help_for__errors_that_mention_no_name():
    cfg = Config(dict(model=dict(type='SARLos', depth=1)))
    for error in (
        KeyError('img'),
        KeyError(),
        TypeError('unsupported operand'),
        ValueError('SARLos'),
        ImportError('x'),
    ):
        assert help_for(error, cfg) == help_for(error) == ''


def test_options_of__includes_those_of_the_bases():
    assert options_of(Room) == ['doors', 'height', 'colour']
    assert options_of(SARLoss)[:3] == ['anchor_weight', 'pull_weight', 'confidence_threshold']
    assert options_of(None) == options_of('Room') == options_of(nn.Identity) == []


def test_parts_of__includes_what_is_built_by_default():
    places = {place: kind and kind.__name__ for place, _, kind in parts_of(Config(dict(a=[dict(anchor_head=dict())])))}
    expected = {'a.0.anchor_head': 'SemanticAnchorHead', 'a.0.anchor_head.anchors': 'GaussianAnchors'}
    assert places == {'': None, 'a.0': None, **expected, 'a.0.anchor_head.loss': 'SARLoss'}
    assert parts_of(None) == []


def test_help_for__a_stock_runner(tmp_path):
    """An error on its way through mmengine, with a config that a runner was made from."""
    cfg = dict(model=dict(type='SemanticAnchorHead', num_classes=3, channels=8, momentun=0.9))
    cfg['work_dir'] = str(tmp_path)
    assert help_after(cfg, lambda cfg: Runner.from_cfg(cfg)).endswith('did you mean momentum?')
