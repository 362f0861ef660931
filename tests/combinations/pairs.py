"""All-pairs design: few rows that show every two parts together."""

from itertools import combinations
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

Row = Dict[str, str]
Factors = Dict[str, Sequence[str]]


class Rule(NamedTuple):
    """Parts that do not go together: of a factor's name, the values that are meant.

    Args:
        parts: The values by factor; a row with one of each of them breaks the rule.
        why: The reason, for readers.
        refusal: A pattern of the message with which the product refuses them. None: it is not for the product to say.
    """

    parts: Dict[str, Sequence[str]]
    why: str
    refusal: Optional[str] = None

    def is_broken_by(self, row: Row) -> bool:
        return all(row.get(factor) in values for factor, values in self.parts.items())


def complete(row: Row, factors: Factors, rules: Sequence[Rule]) -> Optional[Row]:
    """Return a row with all factors that breaks no rule and has the values of ``row``; None where there is none."""
    if any(rule.is_broken_by(row) for rule in rules):
        return None
    return _fill(row, [factor for factor in _order(factors, rules) if factor not in row], factors, _by_factor(rules))


def _fill(row: Row, rest: List[str], factors: Factors, rules: Dict[str, List[Rule]]) -> Optional[Row]:
    if not rest:
        return row
    for value in factors[rest[0]]:
        longer = {**row, rest[0]: value}
        if not any(rule.is_broken_by(longer) for rule in rules.get(rest[0], ())):
            found = _fill(longer, rest[1:], factors, rules)
            if found is not None:
                return found
    return None


def _by_factor(rules: Sequence[Rule]) -> Dict[str, List[Rule]]:
    found: Dict[str, List[Rule]] = {}
    for rule in rules:
        for factor in rule.parts:
            found.setdefault(factor, []).append(rule)
    return found


def _order(factors: Factors, rules: Sequence[Rule]) -> List[str]:
    """Return the factors with most rules first: what cannot be completed shows soon."""
    rules = _by_factor(rules)
    return sorted(factors, key=lambda factor: -len(rules.get(factor, ())))


def pairs_of(row: Row) -> List[Tuple]:
    """Return the pairs of (factor, value) in a row."""
    return list(combinations(sorted(row.items()), 2))


def legal_pairs(factors: Factors, rules: Sequence[Rule]) -> List[Tuple]:
    """Return all pairs that some row can have."""
    values = sorted((factor, value) for factor in factors for value in factors[factor])
    pairs = [(one, other) for one, other in combinations(values, 2) if one[0] != other[0]]
    return [pair for pair in pairs if complete(dict(pair), factors, rules) is not None]


def pairwise(factors: Factors, rules: Sequence[Rule], tries: int = 5) -> List[Row]:
    """Return rows that break no rule and have every legal pair, always the same ones.

    Greedy: a row starts with a pair that is missing, and takes of each further factor the value that brings most
    missing pairs. Of the rows that ``tries`` first pairs start, the one that brings most is kept.
    """
    missing = dict.fromkeys(legal_pairs(factors, rules))
    rows = []

    def gain(row: Row) -> int:
        return sum(pair in missing for pair in pairs_of(row))

    while missing:
        starts = list(missing)[:: max(1, len(missing) // tries)]
        row = max((_extend(dict(pair), factors, rules, gain) for pair in starts), key=gain)
        for pair in pairs_of(row):
            missing.pop(pair, None)
        rows.append({factor: row[factor] for factor in factors})
    return rows


def _extend(row: Row, factors: Factors, rules: Sequence[Rule], gain: Callable[[Row], int]) -> Row:
    for factor in sorted(factors, key=lambda factor: (-len(factors[factor]), factor)):
        if factor not in row:
            options = [{**row, factor: value} for value in factors[factor]]
            row = max((option for option in options if complete(option, factors, rules) is not None), key=gain)
    return row
