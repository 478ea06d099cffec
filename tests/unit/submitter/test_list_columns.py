"""`submitter list` names its columns for people on a terminal, and for scripts in a pipe."""

from __future__ import annotations

import io
import sys

import pytest

from submitter.cli.tasks import print_page
from submitter.providers.base import ListedTask, Page

PAGE = Page(1, 30, (ListedTask("9", "succeeded", "01a1fc0a", created_at=1_774_805_076_166),))


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("output", "columns"),
    [(Screen, ["provider id", "task", "status", "created"]), (io.StringIO, ["its id", "our id"])],
)
def test_the_columns_are_named_for_their_readers(
    monkeypatch: pytest.MonkeyPatch, output: type[io.StringIO], columns: list[str]
) -> None:
    printed = output()
    monkeypatch.setattr(sys, "stdout", printed)
    print_page(PAGE, as_json=False)
    first = printed.getvalue().splitlines()[0]
    for column in columns:
        assert column in first
