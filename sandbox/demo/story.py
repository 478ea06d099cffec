"""Tells the main job from submission to delivered hooks, and ends well only if all was seen."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import requests

from sandbox.demo import display, proof, record
from sandbox.demo.processes import Commands, Deadline, Program, StepError
from sandbox.demo.proof import Expected
from sandbox.demo.stage import Stage, folder_that_stays, lay_out
from sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from sandbox.demo.record import Record

SECONDS = 60.0
PACE = 0.7
EXPECTED = {
    "DEMO-1": Expected("kling", "succeeded"),
    "DEMO-2": Expected("modellix", "succeeded", calls_back=False),
    "DEMO-3": Expected("appypie", "failed"),
}
DELIVERIES = 2 * 3 + 1 * 2  # the download hook hears of successes only
BETWEEN_LOOKS = 0.5  # seconds


def tell(*, keep: bool, database_url: str | None = None) -> None:
    """Play the demo; raise StepError for the first step that is missing.

    `database_url`: of an empty database; None: a SQLite file that goes away.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    folder = folder_that_stays()
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-data-")))
        sandbox = stack.enter_context(Sandbox(pace=PACE))
        stage = lay_out(folder, data, sandbox, database_url)
        commands = Commands(stage.settings, Deadline(SECONDS))
        receiver = Program(stage.log, stage.settings, "receiver", "serve", "--bind", stage.bind)
        with _log_shown_on_failure(receiver):
            seen = _play(stage, sandbox, commands, receiver, stack)
        if keep:
            _say_where_to_look(stage, sandbox)
            click.echo(_summary(seen))
            _wait_for_interrupt()
            return
    click.echo(_summary(seen))


def _play(
    stage: Stage, sandbox: Sandbox, commands: Commands, receiver: Program, stack: ExitStack
) -> Record:
    commands.run("receiver", "migrate")
    if tasks := len(record.read(commands).tasks):
        raise StepError(f"an empty database: this one holds {tasks} tasks or more; name another")
    stack.enter_context(receiver)
    _wait_until_ready(stage.url, receiver, commands.deadline)
    click.echo(f"receiver at {stage.url}, sandbox at {sandbox.url}; one task per provider")
    seen = _submit_and_watch(stage, sandbox, commands, receiver)
    proof.check(sandbox, seen, EXPECTED, stage.pictures)
    proof.keep(sandbox, stage.folder)
    first = min(seen.tasks, key=lambda task: task.reference)
    click.echo(f"\nThe timeline of {first.reference}:")
    click.echo(commands.run("receiver", "tasks", "show", first.id).rstrip())
    _say_what_stays(stage)
    return seen


def _submit_and_watch(
    stage: Stage, sandbox: Sandbox, commands: Commands, receiver: Program
) -> Record:
    with ThreadPoolExecutor(1) as pool, display.for_output() as shown:
        submitted = pool.submit(_submit_all, stage, sandbox, commands)
        seen = record.read(commands)
        while not _is_over(submitted, seen):
            if commands.deadline.left == 0:
                raise StepError(f"not everything was delivered in time; last seen: {seen}")
            receiver.check()
            time.sleep(BETWEEN_LOOKS)
            seen = record.read(commands)
            shown.show(seen)
    return seen


def _is_over(submitted: Future[None], seen: Record) -> bool:
    if submitted.done():
        submitted.result()  # raises what went wrong there
    return submitted.done() and seen.is_settled(len(EXPECTED), DELIVERIES)


def _submit_all(stage: Stage, sandbox: Sandbox, commands: Commands) -> None:
    for reference, task in EXPECTED.items():
        _ask_for(sandbox, task.provider, "failed" if task.status == "failed" else "succeed")
        pictures = ("--human", str(stage.human), "--cloth", str(stage.cloth))
        about = ("--provider", task.provider, "--reference", reference, "--json")
        commands.run("submitter", "submit", *about, *pictures)


def _ask_for(sandbox: Sandbox, provider: str, scenario: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        wanted = {"provider": provider, "scenario": scenario}
        answer = session.post(f"{sandbox.url}/_sandbox/next", json=wanted, timeout=5)
    if not answer.ok:
        raise StepError(f"the sandbox does not know the scenario {scenario}")


def _wait_until_ready(url: str, receiver: Program, deadline: Deadline) -> None:
    with requests.Session() as session:
        session.trust_env = False
        while not _is_ready(session, url):
            receiver.check()
            if deadline.left == 0:
                raise StepError(f"{url}/readyz did not answer 200")
            time.sleep(0.1)


def _is_ready(session: requests.Session, url: str) -> bool:
    try:
        return session.get(f"{url}/readyz", timeout=2).ok
    except requests.RequestException:
        return False


@contextmanager
def _log_shown_on_failure(receiver: Program) -> Iterator[None]:
    try:
        yield
    except StepError as missing:
        raise StepError(f"{missing}\nthe end of {receiver.log}:\n{receiver.tail()}") from None


def _say_what_stays(stage: Stage) -> None:
    click.echo("\nTo look at:")
    for path in proof.find_pictures(stage.pictures):
        click.echo(f"  picture  {path}")
    click.echo(f"  e-mail   {stage.folder}/mail-*.eml")
    click.echo(f"  Slack    {stage.folder}/slack-*.json")
    click.echo(f"  log      {stage.log}")
    click.echo("Their pages live as long as the sandbox does: make demo KEEP=1\n")


def _say_where_to_look(stage: Stage, sandbox: Sandbox) -> None:
    password = stage.settings["DASHBOARD_PASSWORD"]
    click.echo(f"receiver  {stage.url}/ (the password is {password})")
    click.echo(f"sandbox   {sandbox.url}/")
    click.echo(f"mail      {sandbox.url}/_sandbox/mail")
    click.echo(f"Slack     {sandbox.url}/_sandbox/slack")
    click.echo("Ctrl-C ends it.")


def _wait_for_interrupt() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo("stopping")


def _summary(seen: Record) -> str:
    return (
        f"demo: {len(seen.tasks)} tasks, {seen.count('succeeded')} succeeded,"
        f" {seen.count('failed')} failed, {seen.count_deliveries('delivered')} deliveries"
        f" delivered, {seen.count_deliveries('dead')} dead"
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
