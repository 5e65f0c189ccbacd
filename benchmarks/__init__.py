"""Benchmarks: `python -m benchmarks NAME`, from a checkout. Ours and the peers alternate in one run, and answers are checked first."""

import sys
from pathlib import Path

# What is measured is the package as it is installed: the checkout, which `python -m` puts first, comes last.
_root = str(Path(__file__).resolve().parents[1])
if _root in sys.path:
    sys.path.remove(_root)
    sys.path.append(_root)
