"""The contract of every dispatcher: who attempts which delivery, and when."""

from __future__ import annotations

from threading import Event as Signal
from typing import Protocol


class Dispatcher(Protocol):
    """Hands due deliveries to `Deliver.attempt`, several at a time, each to one worker at once."""

    def run(self, stop: Signal) -> bool:
        """Work until `stop` is set, then let what is under way end.

        False if it did not end in time; the leases of what is left run out, and it is attempted
        again.
        """
        ...
