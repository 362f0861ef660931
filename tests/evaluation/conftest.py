"""Lets the tests here import the helpers next to them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
