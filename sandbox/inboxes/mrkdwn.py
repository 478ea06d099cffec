"""Convert Slack's mrkdwn to safe HTML: the text is escaped first, then Slack's few marks are
applied.
"""

from __future__ import annotations

import re
from html import unescape

from markupsafe import Markup, escape

LINK = re.compile(r"<(https?://[^|<>\s]+)(?:\|([^<>]*))?>")
MARKS = (
    (re.compile(r"`([^`\n]+)`"), r"<code>\1</code>"),
    (re.compile(r"(?<![\w*])\*([^*\n]+)\*(?![\w*])"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w_])_([^_\n]+)_(?![\w_])"), r"<em>\1</em>"),
    (re.compile(r"(?<![\w~])~([^~\n]+)~(?![\w~])"), r"<s>\1</s>"),
)


def render(text: str) -> Markup:
    """Return `text` as HTML. In mrkdwn, `&`, `<` and `>` are already entities."""
    html, at = Markup(""), 0
    for link in LINK.finditer(text):
        html += _marked(text[at : link.start()]) + _link(link[1], link[2] or link[1])
        at = link.end()
    return html + _marked(text[at:])


def _link(url: str, label: str) -> Markup:
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(unescape(url), unescape(label))


def _marked(text: str) -> Markup:
    html = str(escape(unescape(text)))
    for pattern, replacement in MARKS:
        html = pattern.sub(replacement, html)
    return Markup(html.replace("\n", "<br>"))  # noqa: S704 - escaped above, marks are ours
