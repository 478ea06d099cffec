"""Downloads into a bucket of a real S3 server."""

from __future__ import annotations

import gc
import hashlib
import io
import itertools
import logging
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from email.headerregistry import Address
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from receiver.deliveries import File
from receiver.errors import PermanentFailure, SettingsError, TemporaryFailure
from receiver.events import Media
from receiver.hooks import download as download_hook
from receiver.hooks import file_storage, mime_message, object_storage
from receiver.hooks.download import Download
from receiver.outgoing.socket_guard import public_only
from tests.support.hook_servers import CERT, Page, Site, dripping, notice, picture
from tests.support.installation import ROOT
from tests.support.log_records import LogRecords
from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.postgres_proxy import Between
from tests.support.s3_server import KEYS, S3Server, s3_server

# One process runs all of these tests, so that they share one server.
KEY = "pictures/kling/0199f1a2/0.png"
BIG = 60 * 2**20


@pytest.fixture(scope="module", autouse=True)
def _needs_its_packages() -> None:
    # Imported here, because importing them takes time in each process of the run.
    pytest.importorskip("s3fs", reason="needs the extra s3")
    pytest.importorskip("moto", reason="needs moto[s3]")
    gc.freeze()  # otherwise, each `anew` would search them


@pytest.fixture(scope="module", autouse=True)
def _service_models(_needs_its_packages: None) -> Iterator[None]:
    """Parse the service models once, which takes 0.1 s of CPU time, and not for each `anew`."""
    from botocore.loaders import JSONFileLoader  # noqa: PLC0415 - as above

    parse = lru_cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, file_path: parse(file_path))
        yield


@pytest.fixture(scope="module")
def running() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests' keys, and connections that are closed after the test."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**KEYS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    yield
    anew()


@pytest.fixture
def server(running: S3Server) -> S3Server:
    """The server with one empty bucket."""
    running.forget_all()
    running.client().create_bucket(Bucket="shop")
    return running


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        made.pages["/0"] = Page(picture("PNG", (640, 480)))
        yield made


def anew() -> None:
    """Drop all connections, so that keys are read again."""
    object_storage.file_system.cache_clear()
    gc.collect()


def download(endpoint_url: str | None, to: str = "s3://shop/pictures", **options: Any) -> Download:
    options = {"to": to, "endpoint_url": endpoint_url, "allow_private": True, **options}
    return Download("files", {key: value for key, value in options.items() if value is not None})


def told(site: Site) -> Any:
    return notice(media=(Media("image", f"{site.url}/0", "0"),))


def stored(server: S3Server) -> dict[str, bytes]:
    """Return the objects in the bucket."""
    client = server.client()
    found = client.list_objects_v2(Bucket="shop").get("Contents", [])
    return {
        one["Key"]: client.get_object(Bucket="shop", Key=one["Key"])["Body"].read() for one in found
    }


def unfinished(server: S3Server) -> int:
    return len(server.client().list_multipart_uploads(Bucket="shop").get("Uploads", []))


def test_a_picture_is_stored_in_the_bucket(server: S3Server, site: Site) -> None:
    content = site.pages["/0"].body
    done = download(server.url).send(told(site))
    assert done.answer == f"downloaded 1 file, {len(content)} bytes"
    (file,) = done.files
    assert file.url == f"s3://shop/{KEY}?endpoint_url={server.url}"
    assert stored(server) == {KEY: content}
    assert (file.sha256, file.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert file.thumbnail is not None
    with Image.open(io.BytesIO(file.thumbnail)) as small:
        assert (small.format, small.size) == ("JPEG", (320, 240))
    head = server.client().head_object(Bucket="shop", Key=KEY)
    assert (head["ContentType"], head["Metadata"]) == ("image/png", {"sha256": file.sha256})


@pytest.mark.parametrize(
    ("body", "name", "content_type"),
    [
        (picture("AVIF", (64, 64)), "0.avif", "image/avif"),
        (b"fLaC\0\0\0\x22" + bytes(90), "0.flac", "audio/flac"),
        (bytes(90), "0.bin", "application/octet-stream"),
    ],
)
def test_the_content_type_is_read_from_the_file(
    server: S3Server, site: Site, body: bytes, name: str, content_type: str
) -> None:
    site.pages["/0"] = Page(body)
    download(server.url).send(told(site))
    (key,) = stored(server)
    assert key.endswith(name)
    assert server.client().head_object(Bucket="shop", Key=key)["ContentType"] == content_type


def test_the_endpoint_may_be_set_in_the_environment(
    server: S3Server, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    (file,) = download(None).send(told(site)).files
    assert file.url == f"s3://shop/{KEY}"
    assert file_storage.read(file.url, file.size) == stored(server)[KEY]


def test_a_second_attempt_stores_nothing_again(server: S3Server, site: Site) -> None:
    client = server.client()
    client.put_bucket_versioning(
        Bucket="shop", VersioningConfiguration={"Status": "Enabled"}
    )  # so that a second upload is detected
    assert download(server.url).send(told(site)) == download(server.url).send(told(site))
    assert len(client.list_object_versions(Bucket="shop")["Versions"]) == 1


@pytest.mark.parametrize("metadata", [{}, {"sha256": "0" * 64}])
def test_a_different_object_of_that_name_is_replaced(
    server: S3Server, site: Site, metadata: dict[str, str]
) -> None:
    content = site.pages["/0"].body
    server.client().put_object(Bucket="shop", Key=KEY, Body=b"x" * len(content), Metadata=metadata)
    download(server.url).send(told(site))
    assert stored(server) == {KEY: content}


def test_a_partial_object_that_claims_to_be_complete_is_replaced(
    server: S3Server, site: Site
) -> None:
    content = site.pages["/0"].body
    claim = {"sha256": hashlib.sha256(content).hexdigest()}
    server.client().put_object(Bucket="shop", Key=KEY, Body=content[:-1], Metadata=claim)
    download(server.url).send(told(site))
    assert stored(server) == {KEY: content}


def test_a_large_file_is_never_in_memory_as_a_whole(server: S3Server, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.write_bytes(os.urandom(2**20) * (BIG // 2**20) + b"the end")
    place = object_storage.FileLocation("shop", "large.mp4", server.url)
    object_storage.file_system(server.url).connect()
    tracemalloc.start()
    object_storage.put(draft, place, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BIG / 2
    assert hashlib.sha256(stored(server)["large.mp4"]).digest() == _sha256(draft)


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


HALF = """
import os, signal, sys
from pathlib import Path
from s3fs import S3FileSystem
from receiver.hooks import object_storage

call = S3FileSystem._call_s3

async def until_half(self, method, *args, **given):
    if method == "upload_part" and given["PartNumber"] == 3:
        print("half", flush=True)
        signal.pause()
    return await call(self, method, *args, **given)

S3FileSystem._call_s3 = until_half
location = object_storage.FileLocation("shop", "large.mp4", sys.argv[2])
object_storage.put(Path(sys.argv[1]), location, 100)
"""


def test_a_killed_upload_leaves_no_object(server: S3Server, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.write_bytes(b"x" * (4 * object_storage.PART_SIZE))
    with subprocess.Popen(
        [sys.executable, "-c", HALF, str(draft), server.url], cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        child.kill()
    assert stored(server) == {}
    object_storage.put(draft, object_storage.FileLocation("shop", "large.mp4", server.url), 100)
    assert hashlib.sha256(stored(server)["large.mp4"]).digest() == _sha256(draft)


def test_a_failed_upload_leaves_no_object_and_no_parts(server: S3Server, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.write_bytes(b"x" * (4 * object_storage.PART_SIZE))
    system = object_storage.file_system(server.url)
    system.connect()

    def break_line(params: dict[str, Any], **_: object) -> None:
        if params["query_string"]["partNumber"] == 3:
            raise OSError("the line broke")

    system.s3.meta.events.register("before-call.s3.UploadPart", break_line)
    with pytest.raises(OSError, match="cannot be reached"):
        object_storage.put(draft, object_storage.FileLocation("shop", "large.mp4", server.url), 100)
    assert stored(server) == {}
    assert unfinished(server) == 0


def test_a_missing_bucket_is_named_and_may_be_created_later(server: S3Server, site: Site) -> None:
    hook = download(server.url, "s3://other/pictures")
    with pytest.raises(TemporaryFailure) as caught:
        hook.send(told(site))
    assert str(caught.value) == (
        f"s3://other/pictures: cannot be written: 127.0.0.1:{server.port}: there is no such "
        'bucket; create it, or correct "to" (or "endpoint_url")'
    )
    server.client().create_bucket(Bucket="other")
    assert hook.send(told(site)).files


def test_different_key_errors_are_distinguished_and_no_key_is_shown(
    server: S3Server,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    log_records: LogRecords,
) -> None:
    iam = server.client("iam")
    iam.create_user(UserName="shop")
    known = iam.create_access_key(UserName="shop")["AccessKey"]
    server.ask_for_keys()

    def refusal(**keys: str) -> str:
        anew()
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(TemporaryFailure) as caught:
            download(server.url).send(told(site))
        said = "\n".join([str(caught.value), *log_records.messages(logging.INFO)])
        assert not [secret for secret in keys.values() if secret in said]
        return str(caught.value).partition(f":{server.port}: ")[2]

    assert refusal(**KEYS).startswith("AWS_ACCESS_KEY_ID is unknown to the service")
    keys = {"AWS_ACCESS_KEY_ID": known["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": "n0t-the-0ne"}
    assert refusal(**keys).startswith("AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID")
    keys["AWS_SECRET_ACCESS_KEY"] = known["SecretAccessKey"]
    assert refusal(**keys).startswith("access is denied; allow these credentials s3:PutObject")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert refusal().startswith("there are no credentials; set AWS_ACCESS_KEY_ID and")


def test_an_unavailable_store_is_retried(server: S3Server, site: Site) -> None:
    port = free_port()
    hook = download(f"http://127.0.0.1:{port}")
    with pytest.raises(TemporaryFailure, match="the service cannot be reached"):
        hook.send(told(site))
    between = Between(server.port, port)
    hook.send(told(site))
    assert stored(server) == {KEY: site.pages["/0"].body}
    anew()
    between.close()


NOT_THERE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("first", [b"", NOT_THERE], ids=["at once", "when it is to store"])
def test_a_silent_store_is_given_up_at_the_deadline(
    site: Site, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    # The clock of the hook runs backwards, so that fetching the picture has enough time.
    clock = SimpleNamespace(monotonic=itertools.count(0, -PATIENCE).__next__)
    monkeypatch.setattr(download_hook, "time", clock)
    with dripping(first, pause=0, then_wait=True) as port:
        hook = download(f"http://127.0.0.1:{port}", deadline=1)
        with pytest.raises(TemporaryFailure, match="did not answer in time"):
            hook.send(told(site))


@pytest.mark.parametrize(
    ("status", "code", "family", "said"),
    [
        (503, "SlowDown", TemporaryFailure, "the service limits the rate of requests"),
        (500, "InternalError", TemporaryFailure, "the service answered InternalError"),
        (502, "", TemporaryFailure, "the service answered 502"),
        (403, "AccessDenied", TemporaryFailure, "access is denied"),
        (400, "ExpiredToken", TemporaryFailure, "AWS_SESSION_TOKEN has expired"),
        (400, "EntityTooLarge", PermanentFailure, "lower max_bytes"),
        (400, "KeyTooLongError", PermanentFailure, 'shorten "to" or "path"'),
        (400, "a&#10;&lt;" + "x" * 999, TemporaryFailure, "the service answered ax+$"),
    ],
)
def test_an_error_is_temporary_unless_it_concerns_the_file(
    site: Site, status: int, code: str, family: type[Exception], said: str
) -> None:
    told_by_s3 = f"<Error><Code>{code}</Code><Message>S3CRET</Message></Error>"
    for path in ("/shop/" + KEY, f"/shop/{KEY}?x-id=PutObject"):
        site.pages[path] = Page(told_by_s3.encode() if code else b"", status)
    with pytest.raises(family, match=said) as caught:
        download(site.url).send(told(site))
    assert "S3CRET" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_the_sha256_of_the_file_is_sent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(CERT))
    with Site(tls=True) as store:
        store.pages["/shop/" + KEY] = Page(headers={"ETag": '"x"'})
        download(store.url).send(told(site))
        (put,) = (request for request in store.requests if request.method == "PUT")
    assert put.body == site.pages["/0"].body
    assert put.headers["X-Amz-Content-SHA256"] == hashlib.sha256(put.body).hexdigest()


def test_the_operators_store_may_be_internal(server: S3Server, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.write_bytes(b"x")
    place = file_storage.open_storage("s3://shop/pictures", endpoint_url=server.url)
    with public_only():  # the guard for apprise, on the same thread
        place.put(draft, "0.png")
    assert stored(server) == {"pictures/0.png": b"x"}


def letter_with(file: File) -> list[bytes]:
    address = Address("", "a", "shop.example")
    media = (Media("image", "https://cdn.example/0", "0"),)
    made = next(
        mime_message.versions(
            notice(media=media).with_files((file,)),
            hook="mail",
            sender=address,
            recipients=[address],
            subject="{task}",
            now=0,
        )
    )
    return [
        part.get_payload(decode=True)  # type: ignore[misc]
        for part in made.walk()
        if part.get_content_maintype() == "image"
    ]


def test_an_email_contains_the_picture_from_the_bucket(server: S3Server, site: Site) -> None:
    (file,) = download(server.url).send(told(site)).files
    preview, original = letter_with(file)
    assert preview.startswith(b"\xff\xd8")  # a JPEG, of the original in full size
    assert preview != file.thumbnail
    assert original == site.pages["/0"].body
    server.client().delete_object(Bucket="shop", Key=KEY)
    assert letter_with(file) == [file.thumbnail]


def test_a_letter_goes_out_while_the_store_is_down(server: S3Server, site: Site) -> None:
    between = Between(server.port)
    (file,) = download(f"http://127.0.0.1:{between.port}").send(told(site)).files
    anew()
    between.close()
    assert letter_with(file) == [file.thumbnail]


def test_what_is_forgotten_is_removed(server: S3Server, site: Site) -> None:
    (file,) = download(server.url).send(told(site)).files
    file_storage.remove(file.url)
    assert stored(server) == {}
    file_storage.remove(file.url)
    with pytest.raises(OSError, match="there is no such bucket"):  # perhaps a wrong endpoint
        file_storage.remove(file.url.replace("//shop/", "//other/"))


def test_the_missing_extra_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SettingsError) as caught:
        download(None)
    assert caught.value.problems == (
        "to: cannot be used: s3fs is not installed: pip install 's3fs>=2026.1'",
    )


@pytest.mark.parametrize(
    ("to", "endpoint_url", "said"),
    [
        ("s3://", None, "to: cannot be used: names no bucket; write s3://bucket/prefix"),
        ("s3:///pictures", None, "to: cannot be used: names no bucket"),
        ("s3://a bucket/x", None, "to: cannot be used: names no bucket"),
        ("s3://shop/x?endpoint_url=http://x", None, "its endpoint_url is an option of its own"),
        ("files", "https://minio.example", 'endpoint_url is only for "s3://bucket/prefix"'),
        ("s3://shop", "minio.example:9000", "endpoint_url: is not a URL"),
        ("s3://shop", "https://me:S3CRET@minio.example", "endpoint_url: has more than an address"),
        ("s3://shop", "https://minio.example/?S3CRET", "endpoint_url: has more than an address"),
    ],
)
def test_mistakes_are_told_at_the_start(to: str, endpoint_url: str | None, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        download(endpoint_url, to)
    (line,) = caught.value.problems
    assert said in line
    assert "S3CRET" not in line


SEND = """
import sys
sys.path.insert(0, ".")
from tests.support.hook_servers import notice
from receiver.events import Media
from receiver.hooks.download import Download

options = {"to": "s3://shop/pictures", "endpoint_url": sys.argv[1], "allow_private": True}
print(Download("files", options).send(notice(media=(Media("image", sys.argv[2]),))).answer)
"""


def test_a_process_ends_without_complaint(server: S3Server, site: Site) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SEND, server.url, f"{site.url}/0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.startswith("downloaded 1 file")
    assert (done.stderr, done.returncode) == ("", 0)
