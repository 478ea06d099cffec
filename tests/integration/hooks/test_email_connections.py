"""E-mails for one server go over one connection while more are waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from receiver.hooks import smtp
from receiver.hooks.base import Done
from receiver.hooks.email import Email, EmailOptions
from receiver.hooks.options import checked
from receiver.outgoing import tls
from receiver.outgoing.deadline import Deadline
from tests.support.hook_servers import CERT, notice, smtp_server
from tests.support.patience import PATIENCE, wait_until


def options(port: int, **more: Any) -> dict[str, Any]:
    addresses = {"from": "shop@shop.example", "to": "one@shop.example"}
    return {"host": "localhost", "port": port, "deadline": PATIENCE, **addresses, **more}


@contextmanager
def taken_turn(port: int, **more: Any) -> Iterator[smtp.SessionTurns]:
    """Use the connection inside the block; e-mails to the same server wait for it."""
    values = checked(EmailOptions(), options(port, **more))
    with Deadline(PATIENCE) as clock, smtp.session(clock, values):
        yield smtp.session_turns[tuple(values[name] for name in smtp.SESSION_OPTIONS)]


def send_waiting(
    port: int, count: int, then: Callable[[], object] = bool, **more: Any
) -> list[Future[Done]]:
    """Send e-mails that wait for the connection until `then` was called; return the outcomes."""
    hook = Email("mail", options(port, **more))
    with ThreadPoolExecutor(count) as pool, taken_turn(port, **more) as turns:
        outcomes = [pool.submit(hook.send, notice()) for _ in range(count)]
        wait_until(lambda: turns.waiting == count)
        then()
    return outcomes


@pytest.mark.parametrize("encryption", ["none", "starttls", "tls"])
def test_waiting_emails_share_one_connection(
    encryption: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERT))
    is_tls = encryption == "tls"
    with smtp_server(starttls=encryption == "starttls", tls=is_tls) as box:
        outcomes = send_waiting(box.port, 3, tls=is_tls)
        assert {outcome.result().answer for outcome in outcomes} == {"250 2.0.0 OK: queued as 4711"}
        assert (len(box.letters), box.sessions) == (3, 1)
        assert box.encrypted == [encryption != "none"] * 3


def test_a_login_is_made_once() -> None:
    with smtp_server(login=True) as box:
        outcomes = send_waiting(box.port, 3, username="shop", password="right")
        assert all(outcome.result() for outcome in outcomes)
        assert box.logins == [("shop", "right")]


def test_an_email_for_which_no_other_waits_closes_the_connection() -> None:
    with smtp_server() as box:
        hook = Email("mail", options(box.port))
        hook.send(notice())
        hook.send(notice())
        assert (len(box.letters), box.sessions) == (2, 2)


def test_other_options_use_a_connection_of_their_own() -> None:
    with smtp_server() as box, taken_turn(box.port, starttls="never"):
        Email("mail", options(box.port)).send(notice())
        assert (len(box.letters), box.sessions) == (1, 1)


def test_an_email_that_was_refused_lets_the_others_use_the_connection() -> None:
    with smtp_server() as box:
        box.refuse["one@shop.example"] = "550 no such user"
        outcomes = send_waiting(box.port, 2)
        assert all("no such user" in str(outcome.exception()) for outcome in outcomes)
        del box.refuse["one@shop.example"]
        assert all(outcome.result() for outcome in send_waiting(box.port, 2))


def test_a_connection_that_has_broken_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent on it, so no e-mail is sent twice."""
    monkeypatch.setattr(smtp.SmtpSession, "rset", lambda _: (421, b"closing"))
    with smtp_server() as box:
        assert all(outcome.result() for outcome in send_waiting(box.port, 3))
        assert len(box.letters) == 3
        assert box.sessions == 1  # the others ended without QUIT


def test_a_connection_is_closed_after_so_many_emails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "MAX_EMAILS", 2)
    with smtp_server() as box:
        assert all(outcome.result() for outcome in send_waiting(box.port, 4))
        assert (len(box.letters), box.sessions) == (4, 2)


def test_an_email_waits_for_no_longer_than_half_of_its_time() -> None:
    with smtp_server() as box, taken_turn(box.port):
        hook = Email("mail", options(box.port, deadline=2))
        hook.send(notice())
        assert (len(box.letters), box.sessions) == (1, 1)


def test_the_deadline_of_each_email_applies_to_the_shared_connection() -> None:
    """The deadline of an e-mail that was sent does not end the connection of the next one."""
    with smtp_server() as box:
        values = checked(EmailOptions(), options(box.port))
        with ThreadPoolExecutor(1) as pool, Deadline(0.5) as clock:
            with smtp.session(clock, values) as first:
                turns = smtp.session_turns[tuple(values[name] for name in smtp.SESSION_OPTIONS)]
                sent = pool.submit(_use_until, clock, first, values)
                wait_until(lambda: turns.waiting == 1)
            assert sent.result() == (250, True)


def _use_until(
    other: Deadline, first: smtp.SmtpSession, values: dict[str, Any]
) -> tuple[int, bool]:
    with Deadline(PATIENCE) as clock, smtp.session(clock, values) as second:
        wait_until(lambda: other.passed)
        return second.noop()[0], second is first


def test_a_tls_context_is_created_once_for_each_set_of_root_certificates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = tls.system_context()
    assert tls.system_context() is usual
    monkeypatch.setenv("SSL_CERT_FILE", str(CERT))
    other = tls.system_context()
    assert other is not usual
    assert tls.system_context() is other
