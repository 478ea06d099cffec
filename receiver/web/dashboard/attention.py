"""The problems that need an operator, which the dashboard shows and announces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from receiver.deliveries import State
from receiver.endpoints import Circuit
from receiver.processes import current_hooks
from receiver.processes.clock_watch import recent_step
from receiver.stores.base import Store
from receiver.stores.sql import metrics
from receiver.stores.sql.endpoint_status import EndpointStatus, endpoint_statuses
from receiver.text.display import one_line, redacted, rfc3339
from receiver.web.health import is_worker_seen

CIRCUITS = {
    Circuit.OPEN: "keeps failing, so nothing is sent to it for a while",
    Circuit.HALF_OPEN: "kept failing, and is being tested",
    Circuit.PAUSED: "is paused by an operator",
    Circuit.DISABLED: "is disabled, because its endpoint is gone",
}
MAX_RESPONSE = 200  # characters
CORRECTED = "retries, leases and deadlines were moved with it; check the time synchronisation"


@dataclass(frozen=True, slots=True)
class Attention:
    """A problem that needs an operator, and the page that helps.

    Our script announces a problem whose `key` is new, or whose `count` has grown.
    """

    key: str
    text: str
    endpoint: str
    link: str
    count: int = 0


def attention(
    store: Store, hooks: Sequence[str], now: int, hide: Callable[[str], str] = redacted
) -> Iterator[Attention]:
    """Yield the problems that need an operator. `hooks` are the names in the hooks file."""
    if not is_worker_seen(store, now):
        text = (
            "No worker is running: callbacks are recorded, but nothing is delivered. "
            "Start receiver serve, or receiver worker."
        )
        yield Attention("worker", text, "deliveries", "Deliveries")
    rejected = current_hooks.processes_by_problem(current_hooks.rejections(store, now))
    for problem, processes in rejected.items():
        text = (
            f"The hooks file was rejected by {processes}; the previous one is used: "
            f"{hide(problem)}. Correct it, and send SIGHUP again."
        )
        yield Attention(f"hooks file {hide(problem)}", text, "endpoints", "Endpoints")
    unfinished = store.erasures.unfinished()
    if unfinished is not None:
        text = (
            f"Data erased since {rfc3339(unfinished.since)} is still in the database's files: "
            f"{unfinished.held_by}. A worker finishes the erasure once that reader ends."
        )
        yield Attention("erasure", text, "overview", "Overview")
    if step := recent_step(store, now):
        text = f"{step.text.capitalize()}: {CORRECTED}."
        yield Attention("clock", text, "deliveries", "Deliveries")
    on_record = (endpoint.hook for endpoint in store.endpoints.all())
    for status in endpoint_statuses(store, dict.fromkeys([*hooks, *on_record]), now):
        if status.has_problem:
            key = f"endpoint {status.hook} {status.state}"
            yield Attention(key, _problem_of(status, hide), "endpoints", "Endpoints")
    counts = store.metrics.delivery_counts()
    for hook, number in metrics.without_hook(counts, hooks).items():
        wait = "1 delivery waits" if number == 1 else f"{number} deliveries wait"
        text = f"{wait}, because the hook {hook} is not in the hooks file."
        yield Attention(f"no hook {hook}", text, "endpoints", "Endpoints")
    dead = sum(one.value for one in counts if one.state == State.DEAD)
    if dead:
        text = "There is 1 dead letter." if dead == 1 else f"There are {dead} dead letters."
        yield Attention("dead", text, "dead", "Dead letters", dead)


def _problem_of(status: EndpointStatus, hide: Callable[[str], str]) -> str:
    """Return the problem of an endpoint as a sentence."""
    if status.circuit is not Circuit.CLOSED:
        return f"The hook {status.hook} {CIRCUITS[status.circuit]}."
    response = one_line(hide(status.last_response), MAX_RESPONSE).rstrip(".")
    text = f"The hook {status.hook}: {status.failure}"
    advice = f" {status.advice.capitalize()}." if status.advice else ""
    return f"{text}: {response}.{advice}" if response else f"{text}."
