"""The cards bucket: what each pool and stage can do, kept when nobody runs (DESIGN section 6)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from vitascope_core.card import ModelCard, StageCard
from vitascope_core.plan import StageName
from vitascope_core.ports import Entry, KeyValue
from vitascope_platform.records import BadRecord, from_json, to_json

log = logging.getLogger(__name__)

Card = ModelCard | StageCard


class Cards:
    """The cards of all pools and stages. Every method raises BrokerUnavailable when the bucket is away."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    async def put(self, card: Card) -> None:
        """Publish a card, replacing the last one of its pool or stage."""
        await self._bucket.put(_key(card), to_json(card))

    async def standing(self, card: Card) -> Card | None:
        """Return the card that stands where this one belongs, or None."""
        entry = await self._bucket.get(_key(card))
        return None if entry is None else _card(entry)

    async def remove_pool(self, pool: str) -> None:
        """Withdraw a pool's card: its model is not served any more."""
        await self._bucket.delete(f"pool.{pool}.card")

    async def remove_stage(self, stage: StageName) -> None:
        """Withdraw a stage's card."""
        await self._bucket.delete(f"stage.{stage}.card")

    async def all(self) -> list[Card]:
        """Return every card."""
        found = (_card(entry) for entry in await self._bucket.entries(""))
        return [card for card in found if card is not None]

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[tuple[str, Card | None] | None]]:
        """Follow the cards: (key, card) for each there is, None once, then each change; a removed card is None."""

        async def cards(entries: AsyncIterator[Entry | None]) -> AsyncIterator[tuple[str, Card | None] | None]:
            async for entry in entries:
                yield None if entry is None else (entry.key, _card(entry))

        async with self._bucket.watch("") as entries:
            yield cards(entries)


def same_offer(one: Card, other: Card) -> bool:
    """Whether two cards say the same to clients; when a model was stored, each replica knows for its own copy."""
    if isinstance(one, ModelCard) and isinstance(other, ModelCard):
        return replace(one, created=other.created) == other
    return one == other


def _key(card: Card) -> str:
    return f"pool.{card.pool}.card" if isinstance(card, ModelCard) else f"stage.{card.stage}.card"


def _card(entry: Entry) -> Card | None:
    if entry.value is None or not entry.key.endswith(".card"):
        return None
    try:
        if entry.key.startswith("pool."):
            return from_json(ModelCard, entry.value)
        return from_json(StageCard, entry.value)
    except BadRecord as error:
        # As good as none: its pool or stage publishes it again when it starts.
        log.error("card skipped", extra={"key": entry.key, "error": str(error)})
        return None
