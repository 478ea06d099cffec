"""`python -m bench`: measure, print the tables, and store the figures."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from bench import ROOT, WORK, disks, machine, sections
from bench.load import has_wrk
from bench.peers import Peers, install
from bench.progress import elapsed, say
from bench.report import report
from bench.targets import Results

RESULTS, MATRIX = ROOT / "bench" / "RESULTS.md", ROOT / "bench" / "MATRIX.md"
TITLE = "# {}\n\nWritten by `{}`; `bench/README.md` explains the rows.\n\n"
LARGE = 5_000_000  # events


def main() -> int:
    given = arguments()
    size = _size(given)
    WORK.mkdir(exist_ok=True)
    say(
        "installing missing programs"
        if not given.smoke
        else "a smoke test: its figures are meaningless"
    )
    peers = Peers() if given.smoke else install()
    by_wrk = has_wrk() and not given.smoke
    no_wrk = peers.why_not.get("wrk", "not for a smoke test")
    with disks.folder() as place:
        results: Results = {
            "machine": machine.described(place),
            "versions": peers.versions,
            "missing": peers.why_not,
            "plan": vars(size.plan),
            "load": "wrk" if by_wrk else f"threads of Python, slowly; wrk: {no_wrk}",
            "fsync_ms": {},
            "problems": {},
        }
        sections.run(size, peers, place, results)
    results["took_s"] = elapsed()
    given.results.write_text(json.dumps(results, indent=1))
    tables = report(results)
    print(tables)
    if given.write:
        keep(tables, is_full=size.plan == sections.FULL.plan)
    return int(bool(results["problems"]))


def keep(tables: str, *, is_full: bool) -> None:
    """Return the file of a run; the long run has its own, which a short run does not replace."""
    if is_full:
        title = TITLE.format("Every load on every disk", "BENCH_FULL=1 make bench WRITE=1")
        MATRIX.write_text(title + tables)
    else:
        RESULTS.write_text(TITLE.format("Results", "make bench WRITE=1") + tables)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="also write bench/RESULTS.md, or MATRIX.md"
    )
    parser.add_argument("--smoke", action="store_true", help="a smoke test of a few seconds")
    parts = list(sections.SECTIONS)
    parser.add_argument(
        "--only", action="append", choices=parts, help="measure only this part; may be repeated"
    )
    parser.add_argument(
        "--results", type=Path, default=WORK / "results.json", metavar="FILE", help="the figures"
    )
    given = parser.parse_args()
    if given.write and (given.only or given.smoke):
        parser.error("--write stores a complete report: leave out --only and --smoke")
    return given


def _size(given: argparse.Namespace) -> sections.Size:
    if given.smoke:
        return sections.SMOKE
    size = sections.FULL if os.environ.get("BENCH_FULL") == "1" else sections.BY_DEFAULT
    if os.environ.get("BENCH_LARGE") == "1":
        size = replace(size, sizes=(*size.sizes, LARGE))
    return replace(size, sections=given.only) if given.only else size


if __name__ == "__main__":
    sys.exit(main())
