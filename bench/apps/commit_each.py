"""Our web process without group commit: each item is a batch of its own."""

from typing import Any

from receiver.stores.sqlite.writer import GroupCommit
from wsgi import app

settle_together = GroupCommit._settle  # noqa: SLF001 - nobody else has to change it


def settle_one_by_one(writer: GroupCommit, batch: list[Any]) -> None:
    for item in batch:
        settle_together(writer, [item])


GroupCommit._settle = settle_one_by_one  # type: ignore[method-assign,assignment]  # noqa: SLF001

__all__ = ["app"]
