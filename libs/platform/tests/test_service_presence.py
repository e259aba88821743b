"""What a service shows of itself: who is there, and what it can do."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import replace
from fractions import Fraction

import pytest

from vitascope_core.card import Defaults, Limits, Mode, ModelCard
from vitascope_platform.cards import Cards
from vitascope_platform.clock import ManualClock, settle
from vitascope_platform.kv_memory import MemoryKeyValue
from vitascope_platform.logs import JsonFormatter
from vitascope_platform.presence import EVERY_S, Present, show
from vitascope_platform.service import publish_card

SIDE = Limits(16, 64, 16)
CARD = ModelCard(
    pool="main",
    id="org/model",
    modes=(Mode.TEXT_TO_VIDEO,),
    width=SIDE,
    height=SIDE,
    num_frames=Limits(1, 9, 4),
    num_inference_steps=Limits(1, 50),
    defaults=Defaults(64, 64, 4, fps=Fraction(16)),
    created=1,
)


async def test_a_process_is_shown_while_it_runs_and_not_after(clock: ManualClock) -> None:
    bucket, busy = MemoryKeyValue(), iter([0, 2, 2])
    task = asyncio.create_task(show(bucket, clock, lambda: Present("denoiser", "pod-1", "1.0", busy=next(busy))))
    await clock.advance(EVERY_S)

    entry = await bucket.get("denoiser.pod-1")
    assert entry is not None
    shown = json.loads(entry.value or b"")
    assert (shown["service"], shown["busy"], shown["schema_version"]) == ("denoiser", 2, 1)

    task.cancel()
    await settle()
    assert await bucket.get("denoiser.pod-1") is None


async def test_replicas_that_agree_leave_the_card_alone(caplog: pytest.LogCaptureFixture) -> None:
    bucket = MemoryKeyValue()
    cards = Cards(bucket)
    await publish_card(cards, CARD)
    first = await bucket.get("pool.main.card")

    # Each knows for its own copy when it was stored.
    await publish_card(cards, replace(CARD, created=2))

    assert await bucket.get("pool.main.card") == first
    assert "replaced" not in caplog.text


async def test_replicas_that_do_not_agree_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    cards = Cards(MemoryKeyValue())
    await publish_card(cards, CARD)

    await publish_card(cards, replace(CARD, id="org/other"))

    assert "another card is replaced" in caplog.text
    assert [card.id for card in await cards.all() if isinstance(card, ModelCard)] == ["org/other"]


def test_a_log_line_for_machines_holds_fields_and_exception() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        record = logging.LogRecord("vitascope", logging.ERROR, __file__, 1, "job %s", ("failed",), sys.exc_info())
    record.job_id = "video_1"

    line = json.loads(JsonFormatter().format(record))

    assert (line["level"], line["message"], line["job_id"]) == ("error", "job failed", "video_1")
    assert "ValueError: bad" in line["exception"]
