"""The pages of the two inboxes. Scripts in messages are not executed."""

from __future__ import annotations

import re

from flask import Blueprint, Response, abort, jsonify, render_template, request, url_for

from sandbox.components import components
from sandbox.inboxes.mail import Mail, MailPart
from sandbox.inboxes.slack import SlackRefusalError

SHOWN_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:"
CONTENT_ID = re.compile(r"""cid:([^"'\s>)]+)""")

routes = Blueprint("inboxes", __name__)


@routes.get("/_sandbox/mail")
def mail_list() -> str:
    mails = components().mailbox.mails()
    return _mail_page(mails[-1] if mails else None)


@routes.get("/_sandbox/mail/<int:number>")
def mail_view(number: int) -> str:
    return _mail_page(_mail(number))


@routes.get("/_sandbox/mail.json")
def mail_json() -> Response:
    return jsonify([mail.as_json() for mail in components().mailbox.mails()])


@routes.get("/_sandbox/mail/<int:number>/body")
def mail_body(number: int) -> Response:
    """Serve the HTML body for the page's sandboxed frame, with URLs in place of `cid:` pictures."""
    mail = _mail(number)
    html = CONTENT_ID.sub(lambda match: _part_url(mail, match[1]), mail.html or "")
    answer = Response(html, mimetype="text/html")
    answer.headers["Content-Security-Policy"] = MAIL_POLICY
    return answer


@routes.get("/_sandbox/mail/<int:number>/raw")
def mail_raw(number: int) -> Response:
    return Response(_mail(number).raw, mimetype="text/plain")


@routes.get("/_sandbox/mail/<int:number>/parts/<int:index>")
def mail_part(number: int, index: int) -> Response:
    found = _mail(number).parts
    if index >= len(found):
        abort(404)
    return _served(found[index])


@routes.post("/_sandbox/slack/<path:webhook>")
def slack_post(webhook: str) -> Response:
    try:
        components().slack.post(webhook, request.get_data())
    except SlackRefusalError as refusal:
        return Response(str(refusal), status=400, mimetype="text/plain")
    return Response("ok", mimetype="text/plain")


@routes.route("/_sandbox/hang", methods=["GET", "POST"])
def hang() -> Response:
    """Never answer, like an endpoint that hangs; the request ends when the sandbox is stopping."""
    components().stopping.wait()
    return Response("the sandbox is stopping", status=503, mimetype="text/plain")


@routes.get("/_sandbox/slack")
def slack_list() -> str:
    return render_template(
        "slack.html",
        messages=components().slack.messages()[::-1],
        url=components().url,
        webhook=components().environment["SANDBOX_SLACK_URL"],
    )


@routes.get("/_sandbox/slack.json")
def slack_json() -> Response:
    return jsonify([message.as_json() for message in components().slack.messages()])


def _mail_page(shown: Mail | None) -> str:
    settings = components().environment
    return render_template(
        "mail.html",
        mails=components().mailbox.mails()[::-1],
        shown=shown,
        shown_types=SHOWN_TYPES,
        smtp=f"{settings['SANDBOX_SMTP_HOST']}:{settings['SANDBOX_SMTP_PORT']}",
    )


def _mail(number: int) -> Mail:
    return components().mailbox.mail(number) or abort(404)


def _part_url(mail: Mail, content_id: str) -> str:
    for index, part in enumerate(mail.parts):
        if part.content_id == content_id:
            return url_for("inboxes.mail_part", number=mail.number, index=index)
    return "about:blank"


def _served(part: MailPart) -> Response:
    if part.content_type in SHOWN_TYPES:
        return Response(part.content, mimetype=part.content_type)
    answer = Response(part.content, mimetype="application/octet-stream")
    answer.headers["Content-Disposition"] = "attachment"
    return answer
