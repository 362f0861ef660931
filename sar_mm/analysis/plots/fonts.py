"""Fonts that have the letters of class names."""

import warnings
from functools import lru_cache
from typing import FrozenSet, Iterable, List

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

DEFAULT = 'DejaVu Sans'  # which matplotlib brings along
# Parts of file names: bitmaps, which matplotlib does not draw, and boxes for all letters that there are.
_NO_LETTERS = ('emoji', 'lastresort')


def families_for(texts: Iterable[str]) -> List[str]:
    """Return the default font, and as many installed ones as it takes to have all letters; warn of missing letters."""
    letters = {letter for text in texts for letter in text if not letter.isspace()}
    families, missing = [DEFAULT], letters - _letters_of(font_manager.findfont(DEFAULT))
    fonts = _installed() if missing else []
    while missing:
        best = max(fonts, key=lambda font: len(missing & _letters_of(font.fname)), default=None)
        if best is None or not missing & _letters_of(best.fname):
            warnings.warn(
                f'no installed font has the letters {"".join(sorted(missing))[:20]!r} of the class names, which '
                'figures show as boxes: install one that has them, such as Noto Sans CJK',
                stacklevel=3,
            )
            break
        families.append(best.name)
        missing -= _letters_of(best.fname)
    return families


@lru_cache(maxsize=None)
def _installed() -> List[font_manager.FontEntry]:
    """Return all installed fonts, also those that came after matplotlib has made its list of them."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError):  # a font that FreeType does not read
            continue
    return font_manager.fontManager.ttflist


@lru_cache(maxsize=None)
def _letters_of(path: str) -> FrozenSet[str]:
    if any(part in path.lower() for part in _NO_LETTERS):
        return frozenset()
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
