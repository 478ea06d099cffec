"""The demo shows the times of events, not of reading them, and stops if nothing happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.demo import display, progress_deadline
from sandbox.demo.activity import Activity, Event
from sandbox.demo.main_job import Watch
from sandbox.demo.progress_deadline import ProgressDeadline, StepError

LIMIT = 60.0  # seconds
T0 = 1_795_875_300_000  # Unix milliseconds
PROVIDERS = {"DEMO-1": "kling", "DEMO-2": "modellix", "DEMO-3": "appypie"}
HOOKS = ("mail", "pictures", "slack")


def event(after_ms: int, reference: str, outcome: str, hook: str | None = None) -> Event:
    return Event(
        T0 + after_ms, PROVIDERS[reference], reference, outcome, hook, "250 OK" * bool(hook)
    )


# All events of a complete demo.
EVENTS = [
    event(0, "DEMO-1", "created"),
    event(838, "DEMO-1", "processing"),
    event(1900, "DEMO-1", "succeeded"),
    *(event(2000 + 30 * place, "DEMO-1", "delivered", hook) for place, hook in enumerate(HOOKS)),
    event(2400, "DEMO-2", "created"),
    event(5000, "DEMO-2", "succeeded"),
    *(event(5200 + 30 * place, "DEMO-2", "delivered", hook) for place, hook in enumerate(HOOKS)),
    event(5500, "DEMO-3", "created"),
    event(7000, "DEMO-3", "failed"),
    event(7200, "DEMO-3", "delivered", "mail"),
]


def printed(one: Event) -> str:
    """Return the line that `receiver tail --json` prints for this event."""
    at = datetime.fromtimestamp(one.at / 1000, UTC).isoformat(timespec="milliseconds")
    row = {
        "at": at.replace("+00:00", "Z"),
        "event": "attempt" if one.hook else "move",
        "task": f"id-{one.reference}",
        "provider": one.provider,
        "account": "default",
        "reference": one.reference,
        "outcome": one.outcome,
        "status": None,
        "hook": one.hook,
        "said": one.answer if one.hook else "verified by the token in the callback URL",
    }
    return json.dumps(row) + "\n"


class World:
    """A receiver whose record grows by one event whenever it is read, while the clock advances."""

    def __init__(self, folder: Path, events: list[Event], seconds_a_look: float) -> None:
        self.file = folder / "activity.log"
        self.file.write_text("a warning of the command\n")
        self.left = list(events)
        self.happened: list[Event] = []
        self.now = 0.0
        self.seconds_a_look = seconds_a_look
        self.is_record_ahead = False

    def look(self) -> list[Event]:
        """Return the result of `Activity.read` after one more event."""
        self.now += self.seconds_a_look
        if self.left:
            self.happened.append(self.left.pop(0))
            with self.file.open("a") as file:
                file.write(printed(self.happened[-1]))
        return self._activity.read()

    read = look

    def run(self, *arguments: str) -> str:
        """Return the output of `receiver tasks` and `receiver deliveries`."""
        events = EVENTS if self.is_record_ahead else self.happened
        statuses = {one.reference: one.outcome for one in events if one.hook is None}
        tasks = [
            {"id": name, "provider": PROVIDERS[name], "reference": name, "status": status}
            for name, status in statuses.items()
        ]
        deliveries = [
            {"id": place, "task": one.reference, "hook": one.hook, "state": one.outcome}
            | {"attempts": 1}
            for place, one in enumerate(events)
            if one.hook
        ]
        return json.dumps(tasks if arguments[1] == "tasks" else deliveries)

    def watch(self) -> Watch:
        self._activity = Activity(self.file)
        deadline = ProgressDeadline(LIMIT, lambda: self.now)
        return Watch(self, self, deadline)  # type: ignore[arg-type]  # implements what is used of both


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    monkeypatch.setattr(progress_deadline, "POLLED_EVERY", 0)

    def make(events: list[Event], seconds_a_look: float = 0.0) -> World:
        return World(tmp_path, events, seconds_a_look)

    return make


def submitted(error: Exception | None = None) -> Future[None]:
    done: Future[None] = Future()
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)
    return done


def test_a_demo_that_makes_progress_has_no_total_limit(make_world: MakeWorld) -> None:
    world = make_world(EVENTS, seconds_a_look=LIMIT - 1)
    watch = world.watch()
    watch.until_settled(submitted(), display.Lines())
    assert world.now > 10 * LIMIT
    assert watch.seen.count_deliveries("delivered") == 7


def test_a_demo_without_progress_stops_and_names_each_missing_step(make_world: MakeWorld) -> None:
    world = make_world(EVENTS[:8], seconds_a_look=1)
    with pytest.raises(StepError) as raised:
        world.watch().until_settled(submitted(), display.Lines())
    error = str(raised.value)
    assert "nothing new happened for 60 s" in error
    assert "DEMO-3: not created yet (`submitter submit` creates it)" in error
    assert "DEMO-1" not in error
    assert world.now == 8 + LIMIT


def test_a_failed_attempt_is_shown_but_is_not_progress(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = [event(3000 + place, "DEMO-1", "failed", "mail") for place in range(200)]
    world = make_world([*EVENTS[:3], *failures], seconds_a_look=1)
    with pytest.raises(StepError, match="nothing new happened"):
        world.watch().until_settled(submitted(), display.Lines())
    assert world.now == 3 + LIMIT
    assert "DEMO-1 mail        failed: 250 OK" in capsys.readouterr().out


def test_a_submission_that_failed_ends_the_demo(make_world: MakeWorld) -> None:
    error = StepError("`submitter submit` ended with status 2")
    with pytest.raises(StepError, match="ended with status 2"):
        make_world(EVENTS).watch().until_settled(submitted(error), display.Lines())


def test_the_last_events_are_shown_even_if_the_record_is_read_before_them(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(EVENTS)
    world.is_record_ahead = True
    world.watch().until_settled(submitted(), display.Lines())
    assert len(capsys.readouterr().out.splitlines()) == len(EVENTS)


def test_a_late_read_shows_the_recorded_times_in_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "activity.log"
    activity, shown = Activity(file), display.Lines()
    mixed = [EVENTS[2], EVENTS[0], EVENTS[3], EVENTS[1]]
    file.write_text("".join(map(printed, mixed)))  # hours ago, so these times are in the past
    shown.show(activity.read())
    with file.open("a") as more:
        more.write("a warning of the command\n" + printed(EVENTS[-1]))
    shown.show(activity.read())
    assert capsys.readouterr().out.splitlines() == [
        "  0.0 s  DEMO-1             created",
        "  0.8 s  DEMO-1             processing",
        "  1.9 s  DEMO-1             succeeded",
        "  2.0 s  DEMO-1 mail        delivered",
        "  7.2 s  DEMO-3 mail        delivered",
    ]


def test_a_line_is_read_once_and_only_when_it_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "activity.log"
    whole = printed(EVENTS[0]) + printed(EVENTS[3])
    file.write_text(whole[:-30])
    activity = Activity(file)
    assert activity.read() == [EVENTS[0]]
    file.write_text(whole)
    assert activity.read() == [EVENTS[3]]
    assert activity.read() == []


@pytest.mark.parametrize("line", ["{}", '{"at": 1}', "{", printed(EVENTS[0]).replace("Z", "x")])
def test_an_unknown_line_is_a_missing_step(tmp_path: Path, line: str) -> None:
    file = tmp_path / "activity.log"
    file.write_text(line.rstrip() + "\n")
    with pytest.raises(StepError, match="receiver tail"):
        Activity(file).read()
