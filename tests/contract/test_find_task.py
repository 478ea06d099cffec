"""Every command finds the task that a person names, in every store."""

from __future__ import annotations

import pytest

from receiver.console.find_task import MOST_LISTED, find_task
from receiver.errors import AmbiguousName, NotFound
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.tasks import Status, Task
from tests.support.samples import body, callback

NOW = 1_765_519_851_000
FIRST, SECOND, THIRD = "01a2241d82ad7110aa01", "01a2241d82ad7110bb02", "01a2241e00007110aa99"


@pytest.fixture
def filled(store: Store) -> Store:
    """Three tasks; two of them have the same reference, and one an id at its provider."""
    for task, reference in ((FIRST, "ORDER-7"), (SECOND, "ORDER-7"), (THIRD, "100%_")):
        store.inbox.create_task(Task(task, "kling", Status.CREATED, NOW, NOW, reference=reference))
    Ingest(store).accept(callback(body("processing", "provider-1"), THIRD))
    return store


@pytest.mark.parametrize(
    ("name", "task"),
    [
        (FIRST, FIRST),
        ("01a2241e", THIRD),
        ("aa01", FIRST),
        ("…10aa01", FIRST),  # in the form that tables show
        ("2", SECOND),
        ("100%_", THIRD),
        ("provider-1", THIRD),
    ],
)
def test_a_task_is_found_by_an_id_a_part_of_ours_or_a_reference(
    filled: Store, name: str, task: str
) -> None:
    assert find_task(filled, name).id == task


@pytest.mark.parametrize("name", ["", "100%", "%", "1d82", "AA01", "order-7", "provider", "ü" * 99])
def test_no_other_part_is_enough(filled: Store, name: str) -> None:
    with pytest.raises(NotFound, match="no task has this id or reference"):
        find_task(filled, name)


@pytest.mark.parametrize("name", ["01a2241d", "ORDER-7"])
def test_an_ambiguous_name_lists_the_tasks(filled: Store, name: str) -> None:
    with pytest.raises(AmbiguousName) as caught:
        find_task(filled, name)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{name} names 2 tasks; give the id of one:"
    assert [line.split()[:3] for line in lines] == [
        [SECOND, "ORDER-7", "created"],
        [FIRST, "ORDER-7", "created"],
    ]


def test_a_reference_that_is_the_providers_id_of_another_task_is_ambiguous(filled: Store) -> None:
    task = Task("x", "kling", Status.CREATED, NOW, NOW, reference="provider-1")
    filled.inbox.create_task(task)
    with pytest.raises(AmbiguousName, match="provider-1 names 2 tasks"):
        find_task(filled, "provider-1")


def test_a_complete_match_outranks_a_partial_one(filled: Store) -> None:
    for task, reference in (("aa01", None), ("x", "01a2241e"), ("y", SECOND)):
        filled.inbox.create_task(Task(task, "kling", Status.CREATED, NOW, NOW, reference=reference))
    assert find_task(filled, "aa01").id == "aa01"
    assert find_task(filled, "01a2241e").id == "x"
    assert find_task(filled, SECOND).id == SECOND


def test_a_long_list_is_cut(store: Store) -> None:
    for number in range(MOST_LISTED + 2):
        task = Task(f"t{number}", "kling", Status.CREATED, NOW, NOW, reference="\x1b[2JMANY\n")
        store.inbox.create_task(task)
    with pytest.raises(AmbiguousName) as caught:
        find_task(store, "t")
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("t names more than 10 tasks;")
    assert len(lines) == MOST_LISTED
    assert "\x1b" not in str(caught.value)
