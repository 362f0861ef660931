"""Argument checks that name the argument, what is valid and what was given."""

import math
from numbers import Integral, Real
from typing import Any, Optional


def check(ok: bool, name: str, value: Any, valid: str) -> None:
    """Raise a ValueError that names the argument unless ``ok``."""
    if not ok:
        raise ValueError(f'Expected argument `{name}` to be {valid}, but got {value!r}')


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Raise a ValueError unless ``value`` is an integer of at least ``minimum``."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    check(is_integer and value >= minimum, name, value, f'an integer of at least {minimum}')


def check_probability(name: str, value: Any, ends: bool) -> None:
    """Raise a ValueError unless ``value`` lies in [0, 1] (``ends``) or in (0, 1)."""
    is_inside = isinstance(value, Real) and (0 <= value <= 1 if ends else 0 < value < 1)
    check(is_inside, name, value, f'a number in {"[0, 1]" if ends else "(0, 1)"}')


def check_weight(name: str, value: Any) -> None:
    """Raise a ValueError unless ``value`` is a finite number of at least 0."""
    check(isinstance(value, Real) and 0 <= value < math.inf, name, value, 'a finite number of at least 0')


def check_ignore_index(value: Optional[int]) -> None:
    """Raise a ValueError unless ``value`` is an integer or None."""
    check(value is None or isinstance(value, Integral), 'ignore_index', value, 'an integer or None')
