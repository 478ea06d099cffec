"""Compares this project's speed with that of others: `make bench`. See bench/README.md."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "bench" / ".work"  # peers and results; not under version control
APPS = ROOT / "bench" / "apps"
