import pytest
from mmengine.config import Config
from mmengine.registry import Registry
from torch import nn

from sar_mm.engine.errors import UsageError, describe, is_before_training, options_of
from sar_mm.engine.keys import check_keys
from sar_mm.engine.places import join
from sar_mm.models import SARLoss

HOUSES = Registry('house')


class Wall:
    def __init__(self, height, colour='white'):
        if height < 0:
            raise ValueError(f'Expected argument `height` to be at least 0, but got {height}')


@HOUSES.register_module()
class Room(Wall):
    def __init__(self, doors=1, **kwargs):
        super().__init__(**kwargs)


@HOUSES.register_module()
class House:
    def __init__(self, *rooms, cellar=None):
        # As heads do, with further options and a type.
        self.cellar = HOUSES.build({'type': 'Room', 'doors': 3, **cellar})


def raised(model):
    """Return what describe() says of a config whose model is such a house."""
    cfg = Config(dict(model=model, helper=model))
    with pytest.raises(Exception) as error:
        HOUSES.build(cfg.model)
    assert is_before_training(error.value)
    return describe(error.value, cfg)


@pytest.mark.parametrize(
    'cellar, message',
    [
        (dict(height=-1), 'model.cellar.height: Expected argument `height` to be at least 0, but got -1'),
        (dict(height=1, color='red'), "model.cellar.color='red': Room has no option color; did you mean colour?"),
        (dict(height=1, x=2), 'model.cellar.x=2: Room has no option x; its options are doors, height, colour'),
        (dict(hight=1), 'model.cellar.hight=1: Room has no option hight; did you mean height?'),
        (dict(colour='red'), 'model.cellar: Room needs height, which model.cellar does not give: add height=...'),
        (dict(type='Rom'), "model.cellar.type='Rom' is not registered ("),
    ],
)
def test_describe__names_place_value_and_remedy(cellar, message):
    assert raised(dict(type='House', cellar=cellar)).startswith(message)


def test_describe__says_where_other_errors_were_raised():
    said = raised(dict(type='House', cellar=dict(height='3')))
    assert said.startswith("model.cellar: TypeError: '<' not supported between instances of 'str' and 'int'; ")
    assert "model.cellar.height='3' is a string where an integer or a float may be meant" in said
    assert 'test_errors.py:' in said


def test_describe__part_that_is_there_twice_is_found_within_its_own():
    cfg = Config(dict(model=dict(type='House', cellar=dict(height=-1)), data_preprocessor=dict(height=-1)))
    with pytest.raises(ValueError) as error:
        HOUSES.build(cfg.model)
    assert describe(error.value, cfg).startswith('model.cellar.height: ')


def test_describe__what_older_versions_of_mmengine_put_in_front():
    error = ValueError('class `House` in house.py: class `Wall` in wall.py: Expected argument `height` to be positive')
    assert describe(error) == 'height: Expected argument `height` to be positive'


def test_is_before_training__errors_of_a_step_are_not():
    def run_iter():
        HOUSES.build(dict(type='Rom'))

    with pytest.raises(KeyError) as error:
        run_iter()
    assert not is_before_training(error.value)


def test_options_of__follows_keyword_arguments_to_the_bases():
    assert options_of(Room) == ['doors', 'height', 'colour']
    assert options_of(SARLoss)[:3] == ['anchor_weight', 'pull_weight', 'confidence']
    assert options_of(nn.Identity) == []


@pytest.mark.parametrize(
    'place, name, joined',
    [
        ('', 'momentum', 'momentum'),
        ('model.head', 'momentum', 'model.head.momentum'),
        ('model.head', 'anchor_head.channels', 'model.head.anchor_head.channels'),
        ('model.semi.teacher', 'teacher.momentum', 'model.semi.teacher.momentum'),
        ('model.semi.threshold', 'semi.threshold', 'model.semi.threshold'),
        ('train_dataloader.dataset', 'dataset', 'train_dataloader.dataset.dataset'),
        ('custom_hooks.0', 'train_dataloader.sampler', 'train_dataloader.sampler'),
    ],
)
def test_join__what_both_name_comes_once(place, name, joined):
    assert join(place, name) == joined


def test_check_keys__names_of_the_config_itself_are_left_alone():
    check_keys(Config(dict(model=dict(), models=dict(), train_pipeline=[], test_pipeline=[], norm_cfg=dict())), {})
    check_keys(Config(dict(model=dict(), lr=1)), {'lr': 2, 'runner_type': 'FlexibleRunner', 'compile': True})


@pytest.mark.parametrize(
    'cfg, given, message',
    [
        (dict(custom_hook=[1]), {}, r'custom_hook=\[1\]: nothing reads custom_hook; did you mean custom_hooks\?'),
        (dict(_base=''), {}, r'did you mean _base_\?'),
        (
            dict(),
            {'modle.type': 1},
            r'modle.type=1: the config has no modle, and nothing reads it; did you mean model\?',
        ),
        (dict(env_cfg=dict(cudnn=True)), {}, r'env_cfg.cudnn=True: nothing reads cudnn'),
    ],
)
def test_check_keys__unknown_key(cfg, given, message):
    with pytest.raises(UsageError, match=message):
        check_keys(Config(dict(model=dict(), **cfg)), given)
