"""The token of a callback URL is bound to its provider and task, and cannot be guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.signing.callback_urls import callback_url, check, mint

OLD, NEW = "an-old-secret-of-ours", "a-new-secret-of-ours"


def test_a_token_that_we_created_is_accepted() -> None:
    assert check([NEW], "kling", "task-1", mint(NEW, "kling", "task-1"))


def test_a_token_of_a_rotated_secret_is_accepted() -> None:
    assert check([NEW, OLD], "kling", "task-1", mint(OLD, "kling", "task-1"))
    assert not check([NEW], "kling", "task-1", mint(OLD, "kling", "task-1"))


@pytest.mark.parametrize(("provider", "task"), [("appypie", "task-1"), ("kling", "task-2")])
def test_a_token_is_bound_to_provider_and_task(provider: str, task: str) -> None:
    assert not check([NEW], provider, task, mint(NEW, "kling", "task-1"))


def test_the_boundary_between_provider_and_task_cannot_be_moved() -> None:
    """`ab` + `c` and `a` + `bc` must have different tokens."""
    assert mint(NEW, "kling", "a1") != mint(NEW, "klinga", "1")


@given(st.text())
def test_any_other_token_is_refused(token: str) -> None:
    right = mint(NEW, "kling", "task-1")
    assert check([NEW], "kling", "task-1", token) is (token == right)


@pytest.mark.parametrize("task", ["", "a/b", "a:b", "ä", "-x", "x" * 65, "a\n", "a b"])
def test_an_id_that_cannot_be_part_of_a_path_is_refused(task: str) -> None:
    with pytest.raises(ValueError, match="task id"):
        mint(NEW, "kling", task)
    assert not check([NEW], "kling", task, "anything")


def test_a_callback_url_contains_provider_task_and_token() -> None:
    url = callback_url("https://shop.example/hooks/", NEW, "kling", "task-1")
    token = mint(NEW, "kling", "task-1")
    assert url == f"https://shop.example/hooks/callbacks/kling/task-1/{token}"
