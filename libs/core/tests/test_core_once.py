"""Callbacks of something that happens once."""

from __future__ import annotations

from vitascope_core.once import Once


def test_everybody_who_listens_is_called_once() -> None:
    once, called = Once(), []
    once.listen(lambda: called.append("first"))
    once.listen(lambda: called.append("second"))
    once.happen()
    once.happen()

    assert called == ["first", "second"]


def test_whoever_listens_late_is_called_at_once() -> None:
    once, called = Once(), []
    once.happen()
    once.listen(lambda: called.append("late"))

    assert called == ["late"]
