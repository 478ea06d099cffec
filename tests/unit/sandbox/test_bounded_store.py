"""The store of newest values is limited by number and by size."""

from sandbox.bounded_store import BoundedStore


def test_the_oldest_values_are_removed_first_and_returned() -> None:
    shelf: BoundedStore[str, int] = BoundedStore(2)
    assert shelf.put("a", 1) == []
    assert shelf.put("b", 2) == []
    assert shelf.put("c", 3) == [1]
    assert shelf.values() == [2, 3]
    assert shelf.get("a") is None


def test_a_replaced_value_keeps_its_position_and_its_size_counts_once() -> None:
    shelf: BoundedStore[str, bytes] = BoundedStore(10, 5, len)
    shelf.put("a", b"123")
    shelf.put("b", b"1")
    assert shelf.put("a", b"1234") == []
    assert shelf.values() == [b"1234", b"1"]


def test_too_large_a_value_removes_the_oldest_but_never_itself() -> None:
    shelf: BoundedStore[str, bytes] = BoundedStore(10, 5, len)
    shelf.put("a", b"123")
    assert shelf.put("b", b"1234") == [b"123"]
    assert shelf.put("c", b"1234567") == [b"1234"]
    assert shelf.values() == [b"1234567"]
