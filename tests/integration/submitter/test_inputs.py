"""KEEP_INPUTS: small copies of all inputs are stored; without it, none are."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw

from receiver.config import settings
from receiver.errors import StoreUnavailable
from receiver.stores import Store
from receiver.tasks import Status
from submitter import api, submit
from submitter.cli import main
from submitter.errors import ProviderError
from submitter.pictures.inputs import TryOnInputs, prepare_inputs, thumbnails
from submitter.task_creation import TaskCreator
from tests.support.applications import MakeApp
from tests.support.log_records import LogRecords
from tests.support.scripted_provider import TOKEN, Scripted

MODEL = "kolors-virtual-try-on-v1-5"
RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 128, 0)
MARK = b"taken at Example Street"
API_TOKEN = "a-token-for-the-tests"
SENT = {"person.jpg": ("red", (400, 800)), "shirt.png": ("blue", (300, 400))}
SENT |= {"skirt.png": ("green", (600, 300))}


def photo(folder: Path, name: str) -> None:
    """A picture turned by 90 degrees with an EXIF orientation, and a location."""
    color, size = SENT[name]
    image = Image.new("RGB", size, color)
    ImageDraw.Draw(image).rectangle((0, 0, 40, 40), "black")  # at the top right when upright
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = MARK.decode()
    image.save(folder / name, exif=exif)


@pytest.fixture(autouse=True)
def shop(
    server: Scripted, database: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shop's folder and environment, with KEEP_INPUTS."""
    store.check_schema()  # already migrated
    server.will(server.task())
    monkeypatch.chdir(tmp_path)
    for name in ("PUBLIC_URL", "HOOKS_FILE", "KLING_ACCESS_KEY", "KLING_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KEEP_INPUTS", "1")
    monkeypatch.setenv("CALLBACK_SECRETS", "a-secret-for-the-tests")
    monkeypatch.setenv("API_TOKEN", API_TOKEN)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.setenv("KLING_API_KEY", TOKEN)
    monkeypatch.setenv("KLING_BASE_URL", server.url)
    for name in SENT:
        photo(tmp_path, name)


def by_command() -> None:
    words = ["--human", "person.jpg", "--cloth", "upper:shirt.png", "--cloth", "lower:skirt.png"]
    done = CliRunner().invoke(main, ["submit", *words, "--model", MODEL, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["task"]["status"] == "submitted"


def by_batch() -> None:
    header, row = (
        "reference,human,cloth,cloth2,model",
        "A,person.jpg,upper:shirt.png,lower:skirt.png",
    )
    Path("orders.csv").write_text(f"{header}\n{row},{MODEL}\n")
    done = CliRunner().invoke(main, ["batch", "orders.csv"])
    assert done.exit_code == 0, done.output


def by_library() -> None:
    submit("kling", "person.jpg", ["upper:shirt.png", "lower:skirt.png"], model=MODEL)


def by_api(make_app: MakeApp) -> None:
    person, shirt, skirt = (base64.b64encode(Path(name).read_bytes()).decode() for name in SENT)
    inputs = {"provider": "kling", "human": person, "model": MODEL}
    app = make_app(settings.load(), (api.blueprint,))
    answer = app.test_client().post(
        "/api/tasks",
        json={**inputs, "cloth": [f"upper:{shirt}", f"lower:{skirt}"]},
        headers={"Authorization": f"Bearer {API_TOKEN}"},
    )
    assert answer.status_code == 201, answer.get_json()


every_way = pytest.mark.parametrize(
    "send", [by_command, by_batch, by_library, by_api], indirect=True
)


@pytest.fixture
def send(request: pytest.FixtureRequest, make_app: MakeApp) -> Callable[[], None]:
    """Submit in one of the ways. The application lasts as long as the test."""
    way: Callable[..., None] = request.param
    return partial(way, make_app) if way is by_api else way


def kept(store: Store) -> dict[str, Image.Image]:
    (task,) = store.lists.tasks()
    assert task.status is Status.SUBMITTED
    found = store.queries.inputs(task.id)
    assert all(len(thumbnail) <= 40_000 for thumbnail in found.values())
    return {name: Image.open(io.BytesIO(thumbnail)) for name, thumbnail in found.items()}


def near(image: Image.Image, place: tuple[int, int], color: tuple[int, ...]) -> bool:
    found = image.getpixel(place)
    assert isinstance(found, tuple)
    return all(abs(a - b) < 20 for a, b in zip(found, color, strict=True))


def on_disk(database: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(database.parent.glob("receiver.db*")))


@every_way
def test_inputs_are_stored_small_and_upright(
    send: Callable[[], None], store: Store, database: Path
) -> None:
    send()
    found = kept(store)
    assert {name: image.size for name, image in found.items()} == {
        "human": (320, 160),
        "cloth": (320, 240),
        "cloth2": (160, 320),
    }
    colors = {"human": RED, "cloth": BLUE, "cloth2": GREEN}
    assert all(near(image, (20, 100), colors[name]) for name, image in found.items())
    assert all(near(image, (image.width - 4, 4), (0, 0, 0)) for image in found.values())
    assert all(image.format == "JPEG" for image in found.values())
    assert MARK not in on_disk(database)  # the camera's metadata is not stored


@every_way
@pytest.mark.parametrize("value", [None, "0"])
def test_without_the_setting_no_input_is_stored(
    send: Callable[[], None],
    value: str | None,
    store: Store,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KEEP_INPUTS")
    if value is not None:
        monkeypatch.setenv("KEEP_INPUTS", value)
    send()
    assert kept(store) == {}
    whole = on_disk(database)
    assert b"867283741759111202" in whole  # the task exists
    for name in SENT:
        content = Path(name).read_bytes()
        assert content[:200] not in whole
        assert base64.b64encode(content)[:200] not in whole
    assert not any(
        start in whole for start in (b"\xff\xd8\xff", b"JFIF", b"PNG\r\n", b"/9j/", MARK)
    )


def test_a_single_garment_is_stored_unchanged(store: Store) -> None:
    submit("kling", "person.jpg", "shirt.png")
    assert set(kept(store)) == {"human", "cloth"}


def test_a_url_is_not_fetched_for_storage(store: Store, server: Scripted) -> None:
    submit("kling", f"{server.url}/person.jpg", "shirt.png")
    assert set(kept(store)) == {"cloth"}
    assert [asked.method for asked in server.asked] == ["POST"]


def test_pictures_fetched_for_merging_are_stored() -> None:
    pair = (Path("shirt.png").read_bytes(), Path("skirt.png").read_bytes())
    inputs = TryOnInputs("https://x.example/person.jpg", "aGVsbG8=", merged=pair)
    assert set(thumbnails(inputs)) == {"cloth", "cloth2"}


@pytest.fixture
def keeping(make_creator: Callable[..., TaskCreator]) -> TaskCreator:
    made = make_creator()
    return TaskCreator(made.ingest, made.adapter, settings.load(), sleep=made.sleep)


def broken() -> dict[str, str]:
    whole = Path("person.jpg").read_bytes()
    contents = {"no picture": b"hello", "cut": whole[: len(whole) // 2], "nothing": b""}
    return {why: base64.b64encode(content).decode() for why, content in contents.items()}


@pytest.mark.parametrize("why", ["no picture", "cut", "nothing", "no Base64"])
def test_a_broken_picture_does_not_stop_the_submission(
    why: str, keeping: TaskCreator, store: Store
) -> None:
    shirt = base64.b64encode(Path("shirt.png").read_bytes()).decode()
    inputs = TryOnInputs({**broken(), "no Base64": "a"}[why], shirt)
    task = keeping.send(keeping.record_task(inputs), inputs)
    assert task.status is Status.SUBMITTED
    assert set(store.queries.inputs(task.id)) == {"cloth"}


def test_a_record_that_cannot_store_them_does_not_stop_the_submission(
    keeping: TaskCreator,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    log_records: LogRecords,
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(store.inbox, "keep_inputs", fail)
    inputs = prepare_inputs(keeping.adapter, "person.jpg", "shirt.png")
    task = keeping.send(keeping.record_task(inputs), inputs)
    assert task.status is Status.SUBMITTED
    message = f"the pictures of task {task.id} could not be stored: disk full"
    assert log_records.messages(logging.WARNING) == [message]


def test_the_inputs_of_a_refused_task_are_stored_too(
    keeping: TaskCreator, store: Store, server: Scripted
) -> None:
    """The inputs show the cause of the failure."""
    server.will(server.payload("error-1201.json", 400))
    inputs = prepare_inputs(keeping.adapter, "person.jpg", "shirt.png")
    task = keeping.record_task(inputs)
    with pytest.raises(ProviderError, match="1201"):
        keeping.send(task, inputs)
    assert set(store.queries.inputs(task.id)) == {"human", "cloth"}
