"""Submits one try-on from a program of your own, as the command does."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.tasks import Task
from submitter.follow import Follower
from submitter.pictures.inputs import prepare_inputs
from submitter.session import open_session_with
from submitter.settings import DEFAULT_ACCOUNT
from submitter.task_creation import TaskCreator


def submit(
    provider: str,
    human: str,
    cloth: str | Sequence[str],
    reference: str | None = None,
    model: str | None = None,
    account: str = DEFAULT_ACCOUNT,
    wait: float = 0,
) -> Task:
    """Submit one try-on and return its task as it then stands on record.

    `human` and `cloth` are each a path or an http(s) URL. Two garments, one `upper:` and one
    `lower:`, are merged onto one picture for a model that takes combinations. `reference` is your
    own name for the task. With `wait` (seconds) it is followed until it has ended, or so long.
    Settings come from the environment, as for the command.

    >>> from submitter import submit
    >>> task = submit("kling", "person.jpg", "shirt.png", reference="ORDER-7")
    >>> print(task.status, task.reference)
    submitted ORDER-7
    >>> outfit = ["upper:shirt.png", "lower:skirt.png"]
    >>> task = submit("kling", "person.jpg", outfit, model="kolors-virtual-try-on-v1-5", wait=60)
    >>> print(task.status)
    succeeded

    Raises InputError and ConfigurationError before anything is recorded or sent; ProviderError,
    with `task_id`, once the task is on record (OutcomeUnknown: do not submit it again blindly);
    and `receiver.errors.StoreError`.
    """
    with open_session_with(provider, account) as (record, room):
        order = prepare_inputs(room, human, cloth, reference, model)
        desk = TaskCreator(record.ingest, room, record.settings, account)
        task = desk.send(desk.put_on_record(order), order)
        if wait:
            task = Follower(record, room).follow(task, wait)
        return task
