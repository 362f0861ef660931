"""What the fault tests write into the table of docs/reliability.md."""

import re


def first_sentence(error, *folders):
    """Return the kind and the first sentence of an error, without the folders that its files lie in."""
    text = str(error)
    for folder in folders:
        text = text.replace(f'{folder}/', '')
    text = re.sub(r' at 0x[0-9a-f]+', '', ' '.join(text.split()))
    return f'{type(error).__name__}: {re.split("(?<=[^0-9])[.] ", text)[0]}'
