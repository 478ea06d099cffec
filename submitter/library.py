"""The function `submit`, which other programs import from `submitter`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from receiver.tasks import Status
from submitter.errors import InputError
from submitter.follow import (
    DOWNLOADED_WITHIN,
    Follower,
    TaskWithOutputs,
    wait_for_downloads,
    with_outputs,
)
from submitter.pictures.inputs import prepare_inputs
from submitter.session import open_session_with
from submitter.settings import DEFAULT_ACCOUNT
from submitter.task_creation import TaskCreator


def submit(
    provider: str,
    human: str | os.PathLike[str],
    cloth: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    reference: str | None = None,
    model: str | None = None,
    account: str = DEFAULT_ACCOUNT,
    wait: float = 0,
    metadata: Mapping[str, Any] | None = None,
    *,
    once: bool = False,
) -> TaskWithOutputs:
    """Submit one try-on, as `submitter submit` does, and return its task.

    `human` and `cloth` are paths or http(s) URLs. Two garments, one `upper:` and one `lower:`, are
    merged into one picture for a model that accepts combinations. `reference` is your own name for
    the task; with `once`, a reference that was submitted before is refused. `metadata` is an object
    of up to 4 kB, which hooks receive. With `wait`, return when the task has ended and its outputs
    were downloaded, or after this number of seconds: `media` are the outputs, and `files` the files
    that download hooks stored. Settings are read from the environment, and not from `.env`.

    >>> from submitter import submit
    >>> task = submit("kling", "person.jpg", "shirt.png", reference="ORDER-7")
    >>> print(task.status, task.reference)
    submitted ORDER-7
    >>> outfit = ["upper:shirt.png", "lower:skirt.png"]
    >>> task = submit("kling", "person.jpg", outfit, model="kolors-virtual-try-on-v1-5", wait=60)
    >>> print(task.status, task.media[0].url)
    succeeded https://cdn.example/a.png
    >>> for file in task.files:  # with a download hook and a worker
    ...     print(file.url)

    Raises InputError, ConfigurationError and AlreadySubmitted before anything is recorded or sent;
    ProviderError with a `task_id` once the task is recorded (after OutcomeUnknown, do not submit
    the try-on again without checking); and `receiver.errors.StoreError`.
    """
    if not (isinstance(wait, int | float) and wait >= 0):  # it is used after the task was paid for
        raise InputError("wait", "use a number of seconds, 0 or more")
    with open_session_with(provider, account) as (session, adapter):
        inputs = prepare_inputs(adapter, human, cloth, reference, model, metadata=metadata)
        creator = TaskCreator(session.ingest, adapter, session.settings, account)
        task = creator.record_once(inputs) if once else creator.record_task(inputs)
        task = creator.send(task, inputs)
        if wait:
            ends_at = time.monotonic() + wait
            task = Follower(session, adapter).follow(task, wait)
            if task.status is Status.SUCCEEDED:
                left = min(DOWNLOADED_WITHIN, ends_at - time.monotonic())
                wait_for_downloads(session.store, session.download_hooks, task, left)
        return with_outputs(session.store, task)
