"""The argument checks: what they take, what they refuse, and that the message has the name, the rule and the value."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from sar_mm import checks

NAN, INF = math.nan, math.inf
CASES = {
    'check_flag': (partial(checks.check_flag, 'x'), 'True or False', [True, False], [1, 'no', None]),
    'check_integer': (
        partial(checks.check_integer, 'x', minimum=1),
        'an integer of at least 1',
        [1, np.int64(3), 10**20],
        [0, 1.0, True, '1', None],
    ),
    'check_seed': (checks.check_seed, 'an integer of at least 0', [0, 2**32 - 1], [-1, 2**32, 0.0, None, True]),
    'check_probability-closed': (
        partial(checks.check_probability, 'x', ends=True),
        'a number in [0, 1]',
        [0, 1, 0.5, np.float32(0.5)],
        [-0.1, 1.1, NAN, '0.5', True],
    ),
    'check_probability-open': (
        partial(checks.check_probability, 'x', ends=False),
        'a number in (0, 1)',
        [0.5],
        [0, 1, NAN, None],
    ),
    'check_beta': (checks.check_beta, 'a number in [0, 1)', [0, 0.999], [1, -0.1, NAN, '0']),
    'check_weight': (
        partial(checks.check_weight, 'x'),
        'a finite number of at least 0',
        [0, 2.5, 10**6],
        [-1, INF, NAN, None, False],
    ),
    'check_ignore_index': (checks.check_ignore_index, 'an integer or None', [None, 255, -100], [1.0, '255', True]),
    'check_config': (
        partial(checks.check_config, 'x', example='dict(a=1)'),
        'a dict, such as dict(a=1)',
        [{}, dict(a=1)],
        [None, [], 'dict'],
    ),
    'check_class_counts': (
        partial(checks.check_class_counts, 'x'),
        'one count per class',
        [[3, 0, 1], (2.0, 1.5), np.array([4, 5]), torch.tensor([1.0, 2.0])],
        [[0, 0], [0.5, 0.5], [3, -1], [3, NAN], [3, INF], [], '12', {0: 3}, 5, None, ['3', '4']],
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_checks__take_what_is_valid_and_name_what_is_not(name):
    function, rule, valid, invalid = CASES[name]
    for value in valid:
        function(value)
    for value in invalid:
        with pytest.raises(ValueError, match='Expected argument `.*` to be') as error:
            function(value)
        assert rule in str(error.value) and str(error.value).count(f'but got {value!r}') == 1


def test_check_class_counts__returns_a_list():
    assert checks.check_class_counts('x', torch.tensor([3, 0])) == [3, 0]
    assert checks.check_class_counts('x', (2, 1.5)) == [2, 1.5]


def test_check_choice__names_the_nearest():
    checks.check_choice('mode', 'auto', ['auto', 'plain'])
    with pytest.raises(
        ValueError, match=r"`mode` to be one of \['auto', 'plain'\], but got 'plane'; did you mean plain\?"
    ):
        checks.check_choice('mode', 'plane', ['auto', 'plain'])
    with pytest.raises(ValueError, match=r'but got 3$'):
        checks.check_choice('mode', 3, ['auto', 'plain'])


def test_did_you_mean__up_to_a_number_of_names():
    assert checks.did_you_mean('momentun', ['momentum', 'gate']) == '; did you mean momentum?'
    assert checks.did_you_mean('head_a', ['head_b', 'head_c'], most=2).count(' or ') == 1
    assert checks.did_you_mean('xyz', ['momentum']) == ''
