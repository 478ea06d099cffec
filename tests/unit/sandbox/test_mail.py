"""An e-mail is parsed into the parts that its reader sees."""

from email.message import EmailMessage

from sandbox.inboxes import mail


def example_mail() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Größe 36"
    message["From"] = "Shop <a@shop.example>"
    message["Message-ID"] = "<one@shop.example>"
    message.set_content("plain")
    message.add_alternative('<p><img src="cid:pic"></p>', subtype="html")
    html = message.get_body(("html",))
    assert html is not None
    html.add_related(b"PNG", "image", "png", cid="<pic>", disposition="inline")
    message.add_attachment(b"notes", maintype="application", subtype="pdf", filename="n.pdf")
    return message


def test_bodies_and_attachments_are_distinguished() -> None:
    read = mail.read(example_mail().as_bytes(), 1, "a@shop.example", ("b@shop.example",))
    shown = read.as_json()
    assert (shown["subject"], shown["message_id"]) == ("Größe 36", "<one@shop.example>")
    assert (shown["text"].strip(), shown["html"].strip()) == ("plain", '<p><img src="cid:pic"></p>')
    picture, notes = read.parts
    assert (picture.content_type, picture.content_id, picture.inline) == ("image/png", "pic", True)
    assert (notes.filename, notes.content, notes.inline) == ("n.pdf", b"notes", False)
    assert shown["attachments"][0]["size"] == 3


def test_an_unknown_charset_does_not_lose_the_mail() -> None:
    raw = b"Content-Type: text/plain; charset=klingon\n\nhello"
    assert mail.read(raw, 1, "", ()).text == "hello"


def test_a_mail_without_headers_is_accepted() -> None:
    assert mail.read(b"\r\nhello", 1, "", ()).as_json()["subject"] == ""
