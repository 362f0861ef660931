"""Write the tables of docs/heads.md from the registries."""

import re
from importlib import import_module
from pathlib import Path
from typing import Dict, Tuple, Union

from sar_mm.models.heads import RefusedHead
from sar_mm.registry import MODELS

PAGE = Path(__file__).with_suffix('.md')
HEAD = '| head | with semantic anchors | features | classifier |\n| --- | --- | --- | --- |'


def stock_heads(toolbox: str) -> Dict[str, type]:
    """Return every head in a toolbox's registry, and what is kept with its heads, by name."""
    place = dict(mmseg='mmseg.models.decode_heads', mmpretrain='mmpretrain.models.heads')[toolbox]
    import_module(place)
    heads = import_module(f'{toolbox}.registry').MODELS.module_dict.items()
    return {
        name: head
        for name, head in sorted(heads)
        if head.__module__.startswith(place) or (name.endswith('Head') and head.__module__.startswith(toolbox))
    }


def rows(toolbox: str) -> Dict[str, str]:
    """Return a row of the table for every head of a toolbox."""
    table = {}
    for name in stock_heads(toolbox):
        sar_head = MODELS.module_dict[f'SAR{name}']
        if issubclass(sar_head, RefusedHead):
            cells = (f'`{name}`', f'no: {sar_head.reason.split(": ", 1)[1]}', '', '')
        else:
            cells = (f'`{name}`', f'`SAR{name}`', sar_head.feature, _code(sar_head.classifier) or sar_head.feature)
        table[name] = '| ' + ' | '.join(cells) + ' |'
    return table


def _code(classifier: Union[str, Tuple[str, ...]]) -> str:
    paths = (classifier,) if isinstance(classifier, str) else classifier
    return ', '.join(f'`{path}`' for path in paths)


def render(page: str) -> str:
    """Return the page with its tables made anew."""
    for toolbox in ('mmseg', 'mmpretrain'):
        table = '\n'.join([HEAD, *rows(toolbox).values()])
        marks = rf'(<!-- {toolbox} -->\n)(?:\|.*\n)*'
        page = re.sub(marks, lambda found, table=table: f'{found[1]}{table}\n', page)
    return page


if __name__ == '__main__':
    PAGE.write_text(render(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
