"""mrkdwn is converted to HTML, and only our own tags are markup in it."""

import pytest

from sandbox.inboxes.mrkdwn import render


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("*bold* and `code`", "<strong>bold</strong> and <code>code</code>"),
        ("_so_ ~not~", "<em>so</em> <s>not</s>"),
        ("snake_case_name 2*3*4", "snake_case_name 2*3*4"),
        ("one\ntwo", "one<br>two"),
        ("&lt;b&gt; &amp;amp;", "&lt;b&gt; &amp;amp;"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        (
            "<https://x.example/?a=1&amp;b=2|see>",
            '<a href="https://x.example/?a=1&amp;b=2" rel="noreferrer">see</a>',
        ),
        ("<javascript:alert(1)|see>", "&lt;javascript:alert(1)|see&gt;"),
        (
            '<https://x.example/"onload="|x>',
            '<a href="https://x.example/&#34;onload=&#34;" rel="noreferrer">x</a>',
        ),
    ],
)
def test_mrkdwn_is_rendered_as_html(text: str, html: str) -> None:
    assert str(render(text)) == html
