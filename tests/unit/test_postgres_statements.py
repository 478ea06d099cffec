"""The SQL of the stores, in the syntax of psycopg and of libpq."""

from __future__ import annotations

from receiver.stores.postgres.session import LOCK_NAME, numbered, translated
from receiver.stores.sql.locks import Lock, locked


def test_positional_values_are_numbered() -> None:
    assert numbered("values (?, ?)") == (b"values ($1, $2)", ())


def test_a_named_value_has_one_number_and_a_cast_has_none() -> None:
    sql = "set a = :first, b = :second::text where c = :first"
    assert numbered(sql) == (b"set a = $1, b = $2::text where c = $1", ("first", "second"))


def test_both_forms_of_a_statement_contain_the_lock() -> None:
    for lock in Lock:
        sql = locked("where a = ?", lock).with_lock
        assert translated(sql) == f"where a = %s {lock.value}"
        assert numbered(sql)[0] == f"where a = $1 {lock.value}".encode()


def test_a_name_is_locked_until_the_transaction_ends() -> None:
    assert translated(LOCK_NAME) == "select pg_advisory_xact_lock(hashtextextended(%s, 0))"
    assert numbered(LOCK_NAME)[0] == b"select pg_advisory_xact_lock(hashtextextended($1, 0))"
