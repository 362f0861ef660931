"""What tools/train.py prints."""

import re


def iterations(output):
    return [int(step) for step in re.findall(r'Iter\(train\)\s*\[\s*(\d+)/', output)]


def error_of(output):
    """The message of a training that was refused."""
    found = re.search(r'^error: (.+)', output, re.MULTILINE)
    assert found, output[-3000:]
    assert 'Traceback' not in output
    return found[1]


def warnings_of(output):
    return re.findall(r'WARNING - (.* skipped.*)', output)
