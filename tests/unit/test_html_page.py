"""The text of HTML pages, such as the error pages of proxies, in reasons that people read."""

from __future__ import annotations

import pytest

from receiver.text.html_page import is_page, readable

NGINX = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    "<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx/1.25.3</center>\r\n"
    "</body>\r\n</html>\r\n"
)
PAGES = {
    NGINX: "502 Bad Gateway nginx/1.25.3",
    '<!DOCTYPE html><html lang="en"><title>Sign in</title><main><h1>Please log in</h1>': (
        "Sign in: Please log in"
    ),
    "\ufeff\n<!-- made by a > proxy -->\n<!doctype HTML>\n<body>a &amp; b<br>1 < 2</body>": (
        "a & b 1 < 2"
    ),
    "<html><style>a > b { color: red }</style><script>if (a<b) { x('</p>') }</script><p>Down</p>": (
        "Down"
    ),
    "<html><head><title>Not found</title></head><body></body></html>": "Not found",
    "<html><body><p>It is down<scr": "It is down",  # the page was cut
    "<html><head><script>var x = 1;": "an HTML page without text",
    "<!doctype html>": "an HTML page without text",
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_shown_as_its_title_and_text(page: str) -> None:
    assert is_page(page)
    assert readable(page) == PAGES[page]


@pytest.mark.parametrize(
    "text", ["", "ok", '{"error": "<html>"}', "a <b> c", "<?xml version='1.0'?><Error/>", "<svg/>"]
)
def test_another_text_stays_as_it_is(text: str) -> None:
    assert not is_page(text)
    assert readable(text) == text
