"""File names of downloads are safe and unique, although outsiders choose parts of them."""

from __future__ import annotations

from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from receiver.events import Media
from receiver.hooks.download import DownloadOptions
from receiver.hooks.file_names import file_name, output_names
from tests.support.hook_servers import notice


def names(path: str, *indexes: str, reference: str | None = "ORDER-7") -> list[str]:
    media = tuple(Media("image", "https://cdn.example/x", index) for index in indexes)
    return output_names(path, notice(media=media, reference=reference))


def test_an_output_is_named_by_provider_task_and_index() -> None:
    path = DownloadOptions().load({"to": "files"})["path"]
    assert names(path, "0") == ["kling/0199f1a2/0.{extension}"]


def test_outputs_of_one_task_have_different_names() -> None:
    found = names("{task}.{extension}", "0", "1", "2")
    assert found == ["0199f1a2.{extension}", "0199f1a2-2.{extension}", "0199f1a2-3.{extension}"]
    assert names("{task}/{index}", "a/b", "a?b", "a_b-2") == [
        "0199f1a2/a_b",
        "0199f1a2/a_b-2",
        "0199f1a2/a_b-2-2",
    ]


def test_names_are_the_same_for_every_attempt() -> None:
    again = [names("{task}/{reference}", "x", "x") for _ in range(2)]
    assert again[0] == again[1]


def test_a_task_without_a_reference_has_a_file_name() -> None:
    assert names("{reference}/{task}", "0", reference=None) == ["_/0199f1a2"]


@given(st.text(st.characters()))
def test_no_value_leads_out_of_the_folder(value: str) -> None:
    (name,) = names("{reference}/{index}/{task}.{extension}", value, reference=value)
    parts = PurePosixPath(name).parts
    assert len(parts) == 3
    assert not any(part.startswith((".", "/")) or "\0" in part for part in parts)
    assert file_name(value).isascii()
    assert 0 < len(file_name(value)) <= 64
