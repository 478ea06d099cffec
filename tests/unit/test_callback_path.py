"""Changes that senders and proxies make to the path of a callback do not change its route."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest

from receiver.signing.callback_urls import mint
from receiver.web.middleware import CallbackPaths, normalized
from tests.support.samples import SECRET

TOKEN = mint(SECRET, "kling", "task-1")
PATH = f"/callbacks/kling/task-1/{TOKEN}"
TWICE = quote(quote(PATH, safe=""), safe="")
ALTERED = (
    PATH,
    PATH + "/",
    PATH + "///",
    "/" + PATH,
    "//" + PATH + "//",
    PATH.replace("/", "//"),
    PATH.replace("/kling", "///kling"),
    PATH + "%20",
    PATH + "%20%20",
    PATH + "%20/",
    PATH + "/%20",
    PATH + "/%20/",
    PATH + "%09",
    PATH + "%0A",
    PATH + "%0D%0A",
    PATH + "%C2%A0",
    PATH + "%E3%80%80",
    PATH + "%E2%80%8B",
    PATH + "%EF%BB%BF",
    PATH + "%2520",
    PATH + "%252F",
    PATH + "%2F",
    PATH + "%3Fa=b",
    PATH + "%3Fnext=/a/b",
    PATH + "%3F",
    PATH + "%253Fa%253Db",
    PATH + "&status=done",
    PATH + "/&status=done",
    PATH + "%26status%3Ddone",
    PATH + "%23result",
    PATH + ";jsessionid=1",
    PATH.replace("task-1", "%74ask%2D1"),
    PATH.replace("task-1", "task-1%20"),
    PATH.replace("task-1", "%20task-1"),
    PATH.replace("kling", "kl%69ng"),
    PATH.replace("callbacks", "%63allbacks"),
    PATH.replace("/kling", "%2Fkling"),
    PATH[:-3] + "".join(f"%{ord(letter):02X}" for letter in PATH[-3:]),
    PATH[:-3] + "".join(f"%25{ord(letter):02X}" for letter in PATH[-3:]),
    "/" + TWICE,
)
OTHERS = (
    "/",
    "",
    "/healthz",
    "//healthz/",
    "/api/callbacks/",
    "/x/callbacks/kling/task-1/token",
    "/Callbacks/kling/task-1/token",
    "/callbacks",
    "/callbacks/",
    "/callbacks/kling/task-1",
    "/callbacks/kling/task-1/",
    "/callbacks/kling//token",
    "/callbacks//task-1/token",
    "/callbacks/kling/task-1/token/more",
    "/callbacks/kling/task-1/to/ken",
    "/callbacks/kling/ta%252Fsk/token",
    "/callbacks/kling/task-1/token%25C3%25A9",
    "/callbacks/kling/task-1/%EF%BC%AB",
    "/callbacks/kling/../kling/token",
)
# These paths reach the route, where the token is wrong.
WRONG = {
    PATH + "x": PATH + "x",
    PATH + "=": PATH + "=",
    PATH + ".": PATH + ".",
    PATH + "%20x": PATH + " x",
    PATH + "%00": PATH + "\0",
    PATH[:-5] + "%20" + PATH[-5:]: PATH[:-5] + " " + PATH[-5:],
    PATH.swapcase(): PATH.swapcase(),
    PATH + "%C3%A9": PATH + "é",
    PATH + "%zz": PATH + "%zz",
}


def routed(path: str) -> str:
    """Return the path with which Flask is called for this path of a request line."""
    seen: list[str] = []

    def application(environ: dict[str, Any], _: Any) -> list[bytes]:
        seen.append(environ["PATH_INFO"].encode("latin-1").decode())
        return []

    environ = {"PATH_INFO": unquote_to_bytes(path).decode("latin-1")}
    CallbackPaths(application)(environ, lambda *_: lambda _: None)
    return seen[0]


@pytest.mark.parametrize("path", ALTERED)
def test_an_altered_path_has_the_same_route(path: str) -> None:
    assert routed(path) == PATH
    assert normalized(PATH) == PATH


@pytest.mark.parametrize("path", ["/callbacks/kling/", "//callbacks//kling", "/callbacks/kling%20"])
def test_an_altered_path_of_signed_callbacks_has_the_same_route(path: str) -> None:
    assert routed(path) == "/callbacks/kling"


@pytest.mark.parametrize("path", OTHERS)
def test_another_path_is_not_changed(path: str) -> None:
    assert routed(path) == unquote_to_bytes(path).decode()


@pytest.mark.parametrize(("path", "expected"), WRONG.items())
def test_characters_that_may_belong_to_a_token_are_not_removed(path: str, expected: str) -> None:
    assert routed(path) == expected


def test_bytes_that_are_not_utf_8_are_passed_on() -> None:
    environ = {"PATH_INFO": PATH + "\xff"}
    CallbackPaths(lambda *_: [])(environ, lambda *_: lambda _: None)
    assert environ["PATH_INFO"] == PATH + "\xff"
