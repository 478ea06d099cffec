"""Sends the test events that were asked for on the dashboard, and keeps what came of each.

They go around the record of deliveries: one is sent even where the circuit is open, for whoever
asks wants to know, and it opens and closes none.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from receiver.clock import now_ms
from receiver.delivery import sample_events
from receiver.delivery.attempt import ANSWER_KEPT
from receiver.errors import DeliveryFailure, PermanentFailure
from receiver.hooks.base import Hook
from receiver.stores.base import Store
from receiver.stores.hook_tests import HookTest, HookTestOutcome
from receiver.text.display import storable
from receiver.text.redaction import redacted

LEASE = 10_000  # ms; how long one waits whose worker died

log = structlog.get_logger()


@dataclass(slots=True)
class _Sending:
    """A test event on its way; `outcome` None: it is still being sent."""

    trial: HookTest
    outcome: HookTestOutcome | None = None
    answer: str = ""


@dataclass(frozen=True, slots=True)
class HookTestSender:
    """Each is sent on a thread of its own: a hook that hangs is in no other's way.

    A test event lasts as long as the hook's own deadline lets it, and is held meanwhile.
    """

    store: Store
    hooks: Mapping[str, Hook]
    hide: Callable[[str], str] = redacted  # the secrets in what the other side says
    clock: Callable[[], int] = now_ms
    _under_way: dict[str, _Sending] = field(default_factory=dict)  # by hook

    def round(self) -> None:
        """Keep what ended, hold what is still being sent, begin what was asked for.

        To be called every few seconds, by one thread. Raises StoreUnavailable.
        """
        now = self.clock()
        for sending in list(self._under_way.values()):
            self._look_after(sending, now)
        for trial in self.store.take_trials(now, now + LEASE):
            sending = self._under_way[trial.hook] = _Sending(trial)
            threading.Thread(target=self._send, args=(sending,), name="trial", daemon=True).start()

    def _look_after(self, sending: _Sending, now: int) -> None:
        trial = sending.trial
        if sending.outcome is None:
            self.store.hold_trial(trial, now + LEASE)
            return
        if self.store.end_trial(trial, sending.outcome, sending.answer, now):
            log.info("a test event was sent", hook=trial.hook, outcome=sending.outcome.value)
        del self._under_way[trial.hook]

    def _send(self, sending: _Sending) -> None:
        outcome, said = self._said(sending.trial)
        sending.answer = said
        sending.outcome = outcome  # last: from now on it counts

    def _said(self, trial: HookTest) -> tuple[HookTestOutcome, str]:
        """Whatever a hook raises is an answer."""
        try:
            answer = sample_events.send(self._hook(trial.hook), trial.status)
        except DeliveryFailure as failure:
            return HookTestOutcome.FAILED, self._clean(str(failure))[:ANSWER_KEPT]
        except Exception as error:
            log.exception("a hook broke", hook=trial.hook)
            told = self._clean("".join(traceback.format_exception(error)))
            return HookTestOutcome.FAILED, told[-ANSWER_KEPT:]  # its end says what broke
        return HookTestOutcome.DELIVERED, self._clean(answer)[:ANSWER_KEPT]

    def _hook(self, name: str) -> Hook:
        if name not in self.hooks:
            raise PermanentFailure(
                "nothing was sent: the worker that took it does not know this hook; restart the "
                "worker, or send it SIGHUP, so that it reads the hooks file again"
            )
        return self.hooks[name]

    def _clean(self, text: str) -> str:
        """Without secrets, and without what the record does not take: NUL and half characters."""
        return self.hide(storable(text))
