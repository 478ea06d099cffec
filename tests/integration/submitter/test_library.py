"""`from submitter import submit`, as its documentation shows."""

from __future__ import annotations

import doctest
import importlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import submitter
from receiver.clock import now_ms
from receiver.deliveries import Attempt, File, State
from receiver.stores import Store
from receiver.tasks import Task
from submitter import AlreadySubmitted, InputError, NeverReached, SubmitterError, submit
from submitter.follow import Follower
from tests.support.patience import PATIENCE
from tests.support.scripted_provider import TOKEN, Asked, Scripted


@pytest.fixture(autouse=True)
def shop(
    server: Scripted, database: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shop's folder and environment, without a public URL."""
    store.check_schema()  # already migrated
    monkeypatch.chdir(tmp_path)
    for name in ("PUBLIC_URL", "HOOKS_FILE", "KLING_ACCESS_KEY", "KLING_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.setenv("KLING_API_KEY", TOKEN)
    monkeypatch.setenv("KLING_BASE_URL", server.url)
    for name in ("person.jpg", "shirt.png", "skirt.png"):
        Image.new("RGB", (300, 400), "white").save(tmp_path / name)


def test_the_example_of_the_documentation_works(
    server: Scripted, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submitter.library.Follower", partial(Follower, query_every=0.02))
    server.will(server.task(), server.task(), server.task("succeed"))
    parser = doctest.DocTestParser()
    example = parser.get_doctest(submit.__doc__ or "", {}, "submit", None, None)
    assert len(example.examples) == 7
    failed, _ = doctest.DocTestRunner().run(example)
    assert failed == 0
    models = [asked.json["model_name"] for asked in server.asked if asked.method == "POST"]
    assert models == ["kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5"]
    assert len(store.lists.tasks()) == 2


def test_errors_say_what_to_do_and_have_one_base_class(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    with pytest.raises(InputError, match=r"^human: missing.jpg does not exist$"):
        submit("kling", "missing.jpg", "shirt.png")
    with pytest.raises(InputError, match="cannot be combined"):
        submit("kling", "person.jpg", ["dress:shirt.png", "lower:skirt.png"])
    with pytest.raises(InputError, match="'piapi' is not known"):
        submit("piapi", "person.jpg", "shirt.png")
    assert (store.lists.tasks(), server.asked) == ([], [])
    monkeypatch.setenv("KLING_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(NeverReached) as caught:
        submit("kling", "person.jpg", "shirt.png")
    assert store.queries.task(caught.value.task_id or "").reason == "never reached"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"wait": "5"}, "wait: use a number of seconds"),
        ({"wait": -1}, "wait: use a number of seconds"),
        ({"wait": float("nan")}, "wait: use a number of seconds"),
        ({"wait": []}, "wait: use a number of seconds"),
        ({"human": None}, "human: use a path or a URL, not NoneType"),
        ({"human": b"person.jpg"}, "human: use a path or a URL, not bytes"),
        ({"cloth": None}, "cloth: use a path or a URL, not NoneType"),
        ({"cloth": ["upper:shirt.png", 7]}, "cloth: use a path or a URL, not int"),
        ({"reference": 1007}, "reference: use 1 to 200 printable characters"),
    ],
)
def test_values_of_a_wrong_type_are_refused_before_anything_is_sent(
    server: Scripted, store: Store, given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=f"^{problem}"):
        submit(**{"provider": "kling", "human": "person.jpg", "cloth": "shirt.png", **given})
    assert (store.lists.tasks(), server.asked) == ([], [])


def test_paths_may_be_path_objects(server: Scripted) -> None:
    server.will(server.task(), server.task())
    submit("kling", Path("person.jpg"), Path("shirt.png"))
    garments = ["upper:shirt.png", "lower:skirt.png"]
    submit("kling", Path("person.jpg"), garments, model="kolors-virtual-try-on-v1-5")
    assert len(server.asked) == 2


def test_blanks_around_a_reference_do_not_make_it_another_one(
    server: Scripted, store: Store
) -> None:
    server.will(server.task(), server.task())
    assert submit("kling", "person.jpg", "shirt.png", reference=" ORDER-7 ").reference == "ORDER-7"
    with pytest.raises(AlreadySubmitted):
        submit("kling", "person.jpg", "shirt.png", reference="ORDER-7 ", once=True)
    assert submit("kling", "person.jpg", "shirt.png", reference="  ").reference is None
    assert len(store.lists.tasks()) == 2


def test_every_exported_name_exists_and_is_not_hidden_by_a_module() -> None:
    exported = {name: getattr(submitter, name) for name in submitter.__all__}
    assert exported.pop("submit") is submit
    assert all(issubclass(kind, SubmitterError) for kind in exported.values())
    for path in Path(submitter.__path__[0]).glob("*.py"):
        importlib.import_module(
            f"submitter.{path.stem}" if path.stem != "__main__" else "submitter"
        )
    assert submitter.submit is submit


def test_accounts_have_their_own_keys(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    monkeypatch.setenv("KLING_SHOP2_API_KEY", "the-key-of-shop2")
    server.will(server.task())
    task = submit("kling", "person.jpg", "shirt.png", account="shop2")
    asked: Asked = server.asked[0]
    assert asked.headers["Authorization"] == "Bearer the-key-of-shop2"
    assert store.queries.task(task.id).account == "shop2"


def test_the_task_has_the_files_that_were_downloaded(
    server: Scripted, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hooks.toml").write_text('[[hook]]\nname = "p"\ntype = "download"\nto = "data"\n')

    def download(_: Store, hooks: frozenset[str], __: Task, timeout: float) -> None:
        assert (hooks, 0 < timeout <= 10) == (frozenset({"p"}), True)
        (delivery,) = store.outbox.claim("w", now_ms() + 1, now_ms() + 10_000, 1)
        file = File("0", "/data/0.png", "ab" * 32, 3, "image/png", b"JPEG")
        attempt = Attempt(1, now_ms(), now_ms(), "delivered", "")
        store.outbox.settle(delivery, attempt, State.DELIVERED, None, [file])

    monkeypatch.setattr("submitter.library.Follower", partial(Follower, query_every=0.02))
    monkeypatch.setattr("submitter.library.wait_for_downloads", download)
    server.will(server.task(), server.task("succeed"))
    task = submit("kling", "person.jpg", "shirt.png", wait=PATIENCE)
    assert [(media.index, media.url) for media in task.media] == [
        ("0", "https://cdn.example/a.png")
    ]
    assert [(file.media_index, file.url) for file in task.files] == [("0", "/data/0.png")]
    assert (task.files[0].thumbnail, "JPEG" in repr(task.files)) == (b"JPEG", False)
    assert isinstance(task, Task)


def test_without_waiting_the_task_has_no_outputs_yet(server: Scripted) -> None:
    server.will(server.task())
    task = submit("kling", "person.jpg", "shirt.png")
    assert (task.media, task.files) == ((), ())


def test_waiting_ends_in_time_and_the_task_continues(server: Scripted) -> None:
    server.will(server.task())
    task: Any = submit("kling", "person.jpg", "shirt.png", wait=0.3)
    assert task.status == "submitted"


def test_once_refuses_a_reference_that_was_submitted_before(server: Scripted, store: Store) -> None:
    server.will(server.task())
    task = submit("kling", "person.jpg", "shirt.png", reference="ORDER-7", once=True)
    with pytest.raises(AlreadySubmitted, match="nothing was sent") as caught:
        submit("kling", "person.jpg", "shirt.png", reference="ORDER-7", once=True)
    assert caught.value.task_id == task.id
    with pytest.raises(InputError, match=r"^once: needs a reference"):
        submit("kling", "person.jpg", "shirt.png", once=True)
    assert len(server.asked) == len(store.lists.tasks()) == 1
