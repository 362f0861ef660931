import pytest
from mmengine.config import Config

from sar_mm.analysis.report.titles import differences, settings_of, titles_of

NOTHING = frozenset()
LONG = 'resnet8-la_1xb128-4k_fashion-mnist-lt-if100'


def of_names(*names):
    return titles_of([(name, NOTHING) for name in names])


@pytest.mark.parametrize(
    ('names', 'titles'),
    [
        ([LONG], [LONG]),
        ([LONG, f'sar_{LONG}'], ['resnet8-la', 'sar_resnet8-la']),
        # What tells them apart is at both ends.
        (
            [LONG, f'sar_{LONG}', f'sar_{LONG} + cosine'],
            ['resnet8-la', 'sar_resnet8-la', 'sar_resnet8-la … + cosine'],
        ),
        (['fcn_1xb16-80k_city', 'sar_fcn_1xb16-40k_city'], ['fcn_1xb16-80k', 'sar_fcn_1xb16-40k']),
        (['sar_fcn_hr48_80k_city', 'sar_fcn_r101_80k_city'], ['hr48', 'r101']),
        (['fcn_hr48', 'fcn_hr48_80k'], ['fcn', 'fcn … 80k']),
        # The same parts in another order.
        (['fcn_hr48', 'hr48_fcn'], ['fcn_hr48', 'hr48_fcn']),
    ],
)
def test_titles_of__what_tells_names_apart(names, titles):
    assert of_names(*names) == titles


def of_settings(*settings, name=LONG):
    return titles_of([(name, frozenset(each.items())) for each in settings])


def test_titles_of__settings_of_configs_of_one_name():
    place = 'model.head.anchor_head.loss.pull_weight'
    assert of_settings({}, {place: '0.5'}) == ['resnet8-la (as it is)', 'resnet8-la (pull_weight=0.5)']
    assert of_settings({'warn.0': '1'}, {'warn.0': '2'}) == ['resnet8-la (warn.0=1)', 'resnet8-la (warn.0=2)']
    (_, long) = of_settings({}, {'data.root': repr('a/long/path/of/data/on/a/disk')})
    assert long == 'resnet8-la (root=a/long/path/of/data/on/…)'
    first, second = of_settings(dict.fromkeys('abcd', '1'), {**dict.fromkeys('abc', '1'), 'd': '2'}, name='net')
    assert (first, second) == ('net (d=1)', 'net (d=2)')
    # More settings than a title has differ, and the first of them are the same.
    every = [{**dict.fromkeys('abc', '1'), 'd': value} for value in '12'] + [{}]
    titles = of_settings(*every, name='net')
    assert titles == ['net (a=1, b=1, c=1, …) #1', 'net (a=1, b=1, c=1, …) #2', 'net (as it is)']


def test_differences__are_complete():
    models = [('net', frozenset({('a', '1'), ('b.c', '2')})), ('net', frozenset({('a', '1')})), ('other', NOTHING)]
    assert differences(models) == [[('b.c', '2')], [], []]


def test_settings_of__without_those_of_the_run():
    cfg = Config(dict(model=dict(type='A', sizes=[1, 2], empty={}), work_dir='w', randomness=dict(seed=1)))
    assert settings_of(cfg) == {
        ('model.type', "'A'"),
        ('model.sizes.0', '1'),
        ('model.sizes.1', '2'),
        ('model.empty', '{}'),
    }
