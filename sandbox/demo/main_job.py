"""Runs the demo from submission to delivered hooks, and checks that every step was seen."""

from __future__ import annotations

import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
import requests

from sandbox.callback_sender import Persistence
from sandbox.demo import activity, checks, display, receiver_commands
from sandbox.demo.activity import Activity
from sandbox.demo.checks import Expected
from sandbox.demo.processes import Commands, Program, tail
from sandbox.demo.progress_deadline import ProgressDeadline, StepError
from sandbox.demo.receiver_commands import ReceiverCommands
from sandbox.demo.setup import QUERY_AFTER, DemoSetup, folder_that_stays, lay_out, reserve_port
from sandbox.server import Behaviour, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

# Only the deadline of the demo ends the wait, so the sandbox has no limit of its own.
BEHAVIOUR = Behaviour(pace=0.7, persistence=Persistence(retries=1_000, timeout=120.0))
ANSWER_WITHIN = 30.0  # seconds for one request to /readyz; it is repeated
EXPECTED = {
    "DEMO-1": Expected("kling", "succeeded"),
    "DEMO-2": Expected("modellix", "succeeded", calls_back=False),
    "DEMO-3": Expected("appypie", "failed"),
}
DELIVERIES = 2 * 3 + 1 * 1  # only the mail is about the failure as well


def tell(*, keep: bool, database_url: str | None = None, progress_within: float) -> None:
    """Run the demo; raise StepError for the first step that is missing.

    `database_url` names an empty database; None uses a SQLite file that is erased at the end.
    The demo stops when nothing new happens for `progress_within` seconds.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    folder = folder_that_stays()
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-data-")))
        sandbox = stack.enter_context(Sandbox(behaviour=BEHAVIOUR))
        reserved = stack.enter_context(reserve_port())
        stage = lay_out(folder, data, sandbox, reserved, database_url)
        with _log_shown_on_failure(stage.log):
            seen = _play(stage, sandbox, ProgressDeadline(progress_within), stack)
        if keep:
            _say_where_to_look(stage, sandbox)
            click.echo(_summary(seen))
            _wait_for_interrupt()
            return
    click.echo("To see them as pages in a browser, run: make demo KEEP=1\n")
    click.echo(_summary(seen))


def _play(
    stage: DemoSetup, sandbox: Sandbox, deadline: ProgressDeadline, stack: ExitStack
) -> ReceiverCommands:
    commands = Commands(stage.settings, deadline.seconds)
    click.echo("Starting the receiver: web, worker and poller.")
    commands.run("receiver", "migrate")
    if tasks := len(receiver_commands.read(commands).tasks):
        raise StepError(
            f"the database contains at least {tasks} task(s); the demo needs an empty database"
        )
    serve = ("receiver", "serve", "--bind", stage.bind)
    receiver = stack.enter_context(Program(stage.log, stage.settings, *serve))
    follower = stack.enter_context(Program(stage.activity, stage.settings, *activity.COMMAND))
    _wait_until_ready(stage.url, receiver, deadline)
    click.echo(f"receiver at {stage.url}, sandbox at {sandbox.url}")
    click.echo("The hook slack has a filter: it receives results with pictures only.")
    click.echo("The subject of the hook mail is a template.")
    click.echo("One task for each provider. Times are seconds after the first one was created:")
    watch = Watch(commands, Activity(stage.activity), deadline)
    with ThreadPoolExecutor(1) as pool, display.for_output() as shown:
        submitted = pool.submit(_submit_all, stage, sandbox, commands)
        watch.until_settled(submitted, shown, (receiver, follower))
    _wait_for_acknowledgements(sandbox, watch.seen, deadline)
    checks.check(sandbox, watch.seen, EXPECTED, stage.pictures)
    checks.keep(sandbox, stage.folder)
    first = min(watch.seen.tasks, key=lambda task: task.reference)
    click.echo(f"\nThe timeline of {first.reference}:")
    for line in commands.run("receiver", "tasks", "show", first.id).rstrip().splitlines():
        click.echo(display.fitting(line))
    _say_what_stays(stage)
    return watch.seen


@dataclass
class Watch:
    """Shows the activity until every task and delivery has ended and every event was shown."""

    commands: Commands
    activity: Activity
    deadline: ProgressDeadline
    seen: ReceiverCommands = field(default_factory=ReceiverCommands)
    _shown: set[tuple[str, str | None, str]] = field(default_factory=set)
    _is_outdated: bool = True

    def until_settled(
        self, submitted: Future[None], shown: display.Display, programs: tuple[Program, ...] = ()
    ) -> None:
        """Show the activity until `seen` is settled; raise StepError if that does not happen."""

        def is_over() -> bool:
            for program in programs:
                program.check()
            self._show_new(shown)
            return self._is_over(submitted)

        self.deadline.wait_until(is_over, self._missing)

    def _show_new(self, shown: display.Display) -> None:
        events = self.activity.read()
        shown.show(events)
        self._shown |= {(event.reference, event.hook, event.outcome) for event in events}
        self.deadline.note(event for event in events if event.is_progress)
        self._is_outdated |= bool(events)

    def _is_over(self, submitted: Future[None]) -> bool:
        if not submitted.done():
            return False
        submitted.result()  # raises the exception of that thread, if any
        if self._is_outdated and not self._is_settled:
            self.seen, self._is_outdated = receiver_commands.read(self.commands), False
        return self._is_settled and self._shown >= _outcomes(self.seen)

    @property
    def _is_settled(self) -> bool:
        return self.seen.is_settled(len(EXPECTED), DELIVERIES)

    def _missing(self) -> str:
        lines = checks.missing(receiver_commands.read(self.commands), EXPECTED)
        lines = lines or ["the last events, which `receiver tail` has not printed yet"]
        return "\n".join(["the following:", *(f"    {line}" for line in lines)])


def _outcomes(seen: ReceiverCommands) -> set[tuple[str, str | None, str]]:
    """Return the outcomes that the activity must have shown for a settled record."""
    references = {task.id: task.reference for task in seen.tasks}
    return {(task.reference, None, task.status) for task in seen.tasks} | {
        (references[row.task], row.hook, row.state)
        for row in seen.deliveries
        if row.state == activity.DELIVERED
    }


def _submit_all(stage: DemoSetup, sandbox: Sandbox, commands: Commands) -> None:
    for reference, task in EXPECTED.items():
        sandbox.next(task.provider, "failed" if task.status == "failed" else "succeed")
        pictures = ("--human", str(stage.human), "--cloth", str(stage.cloth))
        about = ("--provider", task.provider, "--reference", reference, "--json")
        without = (QUERY_AFTER,) if task.calls_back else ()
        commands.run("submitter", "submit", *about, *pictures, without=without)


def _wait_for_acknowledgements(
    sandbox: Sandbox, seen: ReceiverCommands, deadline: ProgressDeadline
) -> None:
    """Wait until the sandbox has received all answers, which are sent only after the commit."""
    ids = [task.provider_task_id or "" for task in seen.tasks]
    deadline.restart()
    deadline.wait_until(
        lambda: all(map(sandbox.is_quiet, ids)),
        lambda: "the web process to acknowledge all callbacks of the sandbox",
    )


def _wait_until_ready(url: str, receiver: Program, deadline: ProgressDeadline) -> None:
    with requests.Session() as session:
        session.trust_env = False

        def is_ready() -> bool:
            receiver.check()
            try:
                return session.get(f"{url}/readyz", timeout=ANSWER_WITHIN).ok
            except requests.RequestException:
                return False

        deadline.restart()
        deadline.wait_until(is_ready, lambda: f"the web process to answer {url}/readyz with 200")
    deadline.restart()


@contextmanager
def _log_shown_on_failure(log: Path) -> Iterator[None]:
    try:
        yield
    except StepError as missing:
        lines = tail(log.read_text(errors="replace")) if log.exists() else "    (not started)"
        raise StepError(
            f"{missing}\nThe last lines of the receiver's log, {log}:\n{lines}"
        ) from None


def _say_what_stays(stage: DemoSetup) -> None:
    click.echo(f"\nThese files remain in {stage.folder}:")
    for path in checks.find_pictures(stage.pictures):
        click.echo(f"  picture  {path.relative_to(stage.folder)}")
    click.echo("  e-mail   mail-*.eml")
    click.echo("  Slack    slack-*.json")
    click.echo(f"  events   {stage.activity.name}")
    click.echo(f"  log      {stage.log.name}")


def _say_where_to_look(stage: DemoSetup, sandbox: Sandbox) -> None:
    password = stage.settings["DASHBOARD_PASSWORD"]
    click.echo(f"receiver  {stage.url}/ (the password is {password})")
    click.echo(f"sandbox   {sandbox.url}/")
    click.echo(f"mail      {sandbox.url}/_sandbox/mail")
    click.echo(f"Slack     {sandbox.url}/_sandbox/slack")
    click.echo("Stop it with Ctrl-C.")


def _wait_for_interrupt() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo("stopping")


def _summary(seen: ReceiverCommands) -> str:
    return (
        f"demo: {len(seen.tasks)} tasks, {seen.count('succeeded')} succeeded,"
        f" {seen.count('failed')} failed, {seen.count_deliveries('delivered')} deliveries"
        f" delivered, {seen.count_deliveries('dead')} dead"
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
