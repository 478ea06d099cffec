"""The verbs' SQL, as psycopg and as libpq take it."""

from __future__ import annotations

from receiver.stores.postgres.session import numbered, translated
from receiver.stores.sql.session import ALONE


def test_values_in_order_are_numbered() -> None:
    assert numbered("values (?, ?)") == (b"values ($1, $2)", ())


def test_a_name_has_one_number_and_a_cast_is_none() -> None:
    sql = "set a = :first, b = :second::text where c = :first"
    assert numbered(sql) == (b"set a = $1, b = $2::text where c = $1", ("first", "second"))


def test_the_rows_that_a_comment_names_are_locked_either_way() -> None:
    locks = {
        "/* lock tasks */": "for update of tasks",
        "/* lock */": "for update",
        "/* take */": "for update skip locked",
    }
    for comment, lock in locks.items():
        assert translated(f"select ? {comment}") == f"select %s {lock}"
        assert numbered(f"select ? {comment}") == (f"select $1 {lock}".encode(), ())
    assert translated(ALONE) == "select pg_advisory_xact_lock(hashtextextended(%s, 0))"
    assert numbered(ALONE)[0] == b"select pg_advisory_xact_lock(hashtextextended($1, 0))"
