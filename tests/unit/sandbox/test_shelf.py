"""The shelf keeps the newest, by number and by weight."""

from sandbox.bounded_store import BoundedStore


def test_the_oldest_go_first_and_are_told() -> None:
    shelf: BoundedStore[str, int] = BoundedStore(2)
    assert shelf.put("a", 1) == []
    assert shelf.put("b", 2) == []
    assert shelf.put("c", 3) == [1]
    assert shelf.values() == [2, 3]
    assert shelf.get("a") is None


def test_replacing_keeps_the_place_and_counts_the_weight_once() -> None:
    shelf: BoundedStore[str, bytes] = BoundedStore(10, 5, len)
    shelf.put("a", b"123")
    shelf.put("b", b"1")
    assert shelf.put("a", b"1234") == []
    assert shelf.values() == [b"1234", b"1"]


def test_too_heavy_drops_the_oldest_but_never_the_newest() -> None:
    shelf: BoundedStore[str, bytes] = BoundedStore(10, 5, len)
    shelf.put("a", b"123")
    assert shelf.put("b", b"1234") == [b"123"]
    assert shelf.put("c", b"1234567") == [b"1234"]
    assert shelf.values() == [b"1234567"]
