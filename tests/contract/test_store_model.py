"""Any sequence of callbacks leaves the record in the state that a model of ten lines predicts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome
from tests.support.samples import body, callback, subscription

RANK = {"created": 0, "submitted": 1, "processing": 2, "succeed": 3, "failed": 3}
OURS = {"succeed": "succeeded"}


class AnyCallbacks(RuleBasedStateMachine):
    """Callbacks of three tasks in any order and number, compared with the model."""

    make_store: Callable[[Path], SqliteStore]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = self.make_store(Path(self.folder.name) / "receiver.db")
        self.ingest = Ingest(self.store, [subscription("mail")])
        self.moves: dict[str, list[str]] = {}
        self.bodies: dict[str, set[bytes]] = {}

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(
        task=st.sampled_from(["a", "b", "c"]),
        status=st.sampled_from(["submitted", "processing", "succeed", "failed"]),
        variant=st.integers(0, 1),
    )
    def a_callback_arrives(self, task: str, status: str, variant: int) -> None:
        raw = body(status, updated_at=1_765_519_850_000 + variant)
        moves = self.moves.setdefault(task, [])
        current = moves[-1] if moves else "created"
        moved = RANK[status] > RANK[current]
        if moved:
            moves.append(status)
        self.bodies.setdefault(task, set()).add(raw)
        outcome = self.ingest.accept(callback(raw, task))
        assert (outcome is Outcome.RECORDED) is moved

    @invariant()
    def the_record_equals_the_model(self) -> None:
        for task, moves in self.moves.items():
            history = self.store.queries.history(task)
            expected = [OURS.get(status, status) for status in moves]
            assert [move.status for move in history.transitions] == expected
            assert history.task.status == (expected or ["created"])[-1]
            ends = [status for status in expected if status in ("succeeded", "failed")]
            assert [delivery.status for delivery in history.deliveries] == ends
            assert {stored.callback.body for stored in history.callbacks} == self.bodies[task]


@pytest.fixture(scope="module", autouse=True)
def _stores(migrated: Callable[[Path], SqliteStore]) -> None:
    """Let each example copy a migrated record."""
    AnyCallbacks.make_store = staticmethod(migrated)


AnyCallbacks.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_any_sequence_of_callbacks = AnyCallbacks.TestCase
