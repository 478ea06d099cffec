"""The rest of every store's contract: small copies of the pictures that were sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from receiver.stores.upkeep import RepairStep


class Inputs(Protocol):
    """Thumbnails beside a task, by name: `human`, `cloth` and, of two garments, `cloth2`."""

    def keep_inputs(self, task_id: str, thumbnails: Mapping[str, bytes]) -> None:
        """Keep these; of a forgotten task nothing is kept. Safe to repeat. Raises NotFound."""
        ...

    def inputs(self, task_id: str) -> dict[str, bytes]:
        """What is kept; nothing for a task that is not on record."""
        ...

    def names_of_inputs(self, task_ids: Sequence[str]) -> dict[str, list[str]]:
        """Which are kept, by task; a task without any is not named."""
        ...

    def prune_inputs(
        self, older_than: int, *, after: int = 0, limit: int = 200, dead_too: bool = False
    ) -> RepairStep:
        """Erase those of up to `limit` tasks, by row key, those after `after`, that `prune` would
        let go; how many pictures that were.

        A task may end without a message that `prune` could find it by.
        """
        ...
