"""How fast we are, measured beside others: `make bench`. See bench/README.md."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "bench" / ".work"  # peers, results; not under version control
APPS = ROOT / "bench" / "apps"
if (TESTS := str(ROOT / "tests")) not in sys.path:  # its PostgreSQL server and samples serve here
    sys.path.insert(1, TESTS)
