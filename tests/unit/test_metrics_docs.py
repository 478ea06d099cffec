"""docs/metrics.md lists every metric with its kind and labels, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from receiver.observability.metrics import ALL, REASONS, VERIFICATION_FAILURES

DOCS = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(callback_receiver_\w+)` \| (\w+) \| ([^|]*)\| (.+) \|$", re.MULTILINE)


def test_every_metric_is_described_correctly() -> None:
    described = {
        (name, kind, tuple(re.findall(r"\w+", labels)))
        for name, kind, labels, _ in ROW.findall(DOCS)
    }
    assert described == {(one.family, one.kind.value, one.labels) for one in ALL}


def test_every_reason_of_a_rejection_is_described() -> None:
    (row,) = [row for row in ROW.findall(DOCS) if row[0] == VERIFICATION_FAILURES.family]
    assert tuple(re.findall(r"`(\w+)`", row[3])) == REASONS


def test_no_name_is_used_twice() -> None:
    assert len({one.name for one in ALL}) == len(ALL)
