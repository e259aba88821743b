"""``/v1/models``: what is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from vitascope_core.card import ModelCard
from vitascope_gateway.desk import Desk


def model_object(card: ModelCard) -> dict[str, Any]:
    """Return a card as OpenAI's Model object, with what is known beyond it."""
    return {
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": "vitascope",
        "aliases": list(card.aliases),
        "modes": [str(mode) for mode in card.modes],
        "pipeline_class": card.pipeline,
        "note": card.note,
    }


class ModelRoutes:
    """The handlers of ``/v1/models``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix="/v1/models", tags=["models"])
        router.add_api_route("", self.list, methods=["GET"])
        # A path: ids hold slashes, and clients send them as %2F.
        router.add_api_route("/{model:path}", self.retrieve, methods=["GET"])
        return router

    async def list(self) -> Response:
        """List the models served."""
        cards = {card.id: card for card in reversed(self._desk.catalogue.pools)}
        return JSONResponse({"object": "list", "data": [model_object(card) for _, card in sorted(cards.items())]})

    async def retrieve(self, model: str) -> Response:
        """Look at a model, by its id or an alias."""
        return JSONResponse(model_object(self._desk.catalogue.named(model)[0]))
