from pairs import Rule, complete, legal_pairs, pairs_of, pairwise
from parts import FACTORS, ROWS, RULES

LETTERS = dict(a='xyz', b='uvw', c='pq')


def test_pairwise__without_rules_is_near_the_least_number_of_rows():
    rows = pairwise(LETTERS, [])
    assert len(legal_pairs(LETTERS, [])) == 9 + 6 + 6
    assert {pair for row in rows for pair in pairs_of(row)} == set(legal_pairs(LETTERS, []))
    assert 9 <= len(rows) <= 10


def test_pairwise__rules_of_two_and_three_parts():
    rules = [Rule(dict(a=['x'], b=['u']), ''), Rule(dict(a=['y'], b=['v', 'w'], c=['p']), '')]
    rows = pairwise(LETTERS, rules)
    assert not any(rule.is_broken_by(row) for rule in rules for row in rows)
    found = {pair for row in rows for pair in pairs_of(row)}
    assert (('a', 'x'), ('b', 'u')) not in found and (('a', 'y'), ('b', 'v')) in found
    assert found == set(legal_pairs(LETTERS, rules))
    assert rows == pairwise(LETTERS, rules)


def test_complete__none_where_rules_leave_nothing():
    assert complete(dict(a='x'), LETTERS, [Rule(dict(a=['x'], c=['p', 'q']), '')]) is None


def test_rows__have_every_legal_pair_of_the_product():
    assert {pair for row in ROWS for pair in pairs_of(row)} == set(legal_pairs(FACTORS, RULES))
    assert not any(rule.is_broken_by(row) for rule in RULES for row in ROWS)
    assert pairwise(FACTORS, RULES) == ROWS
    assert len(ROWS) <= 92


def test_rules__name_parts_that_there_are():
    for rule in RULES:
        for factor, values in rule.parts.items():
            assert set(values) <= set(FACTORS[factor]), rule.why
