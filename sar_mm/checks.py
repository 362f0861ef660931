"""Argument checks that name the argument, what is valid and what was given."""

import difflib
import math
from numbers import Integral, Real
from typing import Any, List, Optional, Sequence


class UsageError(ValueError):
    """A mistake in a config or on the command line; the tools print its message, a sentence, without a traceback.

    Args:
        message: The argument, its value, and what is valid.
        argument: Name of the argument, by which the tools find its place in the config.
        value: Its value.
    """

    def __init__(self, message: str, argument: Optional[str] = None, value: Any = None) -> None:
        super().__init__(message)
        self.argument = argument
        self.value = value


def check(ok: bool, name: str, value: Any, valid: str) -> None:
    """Raise a UsageError that names the argument unless ``ok``."""
    if not ok:
        raise UsageError(f'Expected argument `{name}` to be {valid}, but got {value!r}', name, value)


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a real number; True and False are not, though Python counts them as 1 and 0."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_integer(value: Any) -> bool:
    """Tell whether ``value`` is an integer; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_flag(name: str, value: Any) -> None:
    """Raise a UsageError unless ``value`` is True or False: a string such as 'no' would be true."""
    check(isinstance(value, bool), name, value, 'True or False')


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Raise a UsageError unless ``value`` is an integer of at least ``minimum``."""
    check(is_integer(value) and value >= minimum, name, value, f'an integer of at least {minimum}')


def check_seed(value: Any) -> None:
    """Raise a UsageError unless ``value`` is a seed that torch, NumPy and scikit-learn all take."""
    check(is_integer(value) and 0 <= value < 2**32, 'seed', value, 'an integer of at least 0 and below 2 ** 32')


def check_probability(name: str, value: Any, ends: bool) -> None:
    """Raise a UsageError unless ``value`` lies in [0, 1] (``ends``) or in (0, 1)."""
    is_inside = is_number(value) and (0 <= value <= 1 if ends else 0 < value < 1)
    check(is_inside, name, value, f'a number in {"[0, 1]" if ends else "(0, 1)"}')


def check_beta(value: Any) -> None:
    """Raise a UsageError unless ``value`` lies in [0, 1)."""
    check(is_number(value) and 0 <= value < 1, 'beta', value, 'a number in [0, 1)')


def check_weight(name: str, value: Any) -> None:
    """Raise a UsageError unless ``value`` is a finite number of at least 0."""
    check(is_number(value) and 0 <= value < math.inf, name, value, 'a finite number of at least 0')


def are_weights(values: Any) -> bool:
    """Tell whether ``values`` are finite numbers of at least 0: a list, an array or a tensor."""
    if isinstance(values, (str, dict)) or not hasattr(values, '__len__'):
        return False
    values = values.tolist() if hasattr(values, 'tolist') else list(values)
    return all(is_number(value) and 0 <= value < math.inf for value in values)


def check_class_counts(name: str, counts: Any) -> List[float]:
    """Return the counts of the classes as a list; a UsageError where they are none, such as shares that sum to 1."""
    valid = (
        'one count per class, none negative and not all zero, in images or pixels: a number between 0 and 1 is no '
        'count (multiply shares by the number of all images or pixels)'
    )
    check(are_weights(counts) and sum(counts) > 0, name, counts, valid)
    check(all(count == 0 or count >= 1 for count in counts), name, counts, valid)
    return counts.tolist() if hasattr(counts, 'tolist') else list(counts)


def check_loss_of_one_output(place: str, loss: Any) -> None:
    """Raise a UsageError for a loss that cannot train a segmentation head of ``out_channels=1``."""
    is_softmax = getattr(loss, 'use_sigmoid', True) is False and not getattr(loss, 'use_mask', False)
    valid = 'True where out_channels=1: the softmax of one output is always 1'
    check(not is_softmax, f'{place}.use_sigmoid', False, valid)
    weight = getattr(loss, 'class_weight', None)
    count = len(weight) if hasattr(weight, '__len__') else 1
    check(count == 1, f'{place}.class_weight', weight, 'None or one number where out_channels=1')


def check_ignore_index(value: Optional[int]) -> None:
    """Raise a UsageError unless ``value`` is an integer or None."""
    check(value is None or is_integer(value), 'ignore_index', value, 'an integer or None')


def check_config(name: str, value: Any, example: str) -> None:
    """Raise a UsageError unless ``value`` is a dict, as a part of a config is."""
    check(isinstance(value, dict), name, value, f'a dict, such as {example}')


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise a UsageError, with the nearest valid name, unless ``value`` is one of ``choices``."""
    if value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ''
        raise UsageError(f'Expected argument `{name}` to be one of {choices}, but got {value!r}{hint}', name, value)


def did_you_mean(name: str, valid: Sequence[str], most: int = 1, cutoff: float = 0.6) -> str:
    """Return a question for the nearest valid names, or nothing where none is near."""
    nearest = difflib.get_close_matches(name, valid, most, cutoff)
    return f'; did you mean {" or ".join(nearest)}?' if nearest else ''
