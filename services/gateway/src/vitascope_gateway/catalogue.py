"""The cards of an installation: which models are served, and which transforms are installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitascope_core.card import Mode, ModelCard, StageCard
from vitascope_core.errors import Final, InvalidRequest, MissingField, ModelNotFound
from vitascope_core.plan import StageName

_MAKES = {Mode.TEXT_TO_IMAGE: "images", Mode.TEXT_TO_VIDEO: "videos"}


class ModelNeeded(MissingField):
    """A request names no model, and there is not exactly one that fits."""

    def __init__(self, mode: Mode, fitting: Sequence[str], served: Sequence[str]) -> None:
        if fitting:
            text = f"model is required, several make {_MAKES[mode]}: {', '.join(fitting)}"
        else:
            text = f"No model served here makes {_MAKES[mode]}; served: {', '.join(served) or 'none yet'}"
        Final.__init__(self, text)
        self.field = "model"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All cards at one moment."""

    pools: tuple[ModelCard, ...] = ()
    stages: tuple[StageCard, ...] = ()

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The ids of the models served, each once."""
        return tuple(dict.fromkeys(card.id for card in self.pools))

    def named(self, model: str) -> tuple[ModelCard, ...]:
        """Return the pools that serve ``model``, an id or an alias.

        Raises:
            ModelNotFound: None does.
        """
        # An id of one pool wins over an alias of another.
        found = tuple(c for c in self.pools if c.id == model) or tuple(c for c in self.pools if model in c.aliases)
        if not found:
            raise ModelNotFound(model, self.model_ids)
        return found

    def choose(self, model: str | None, mode: Mode) -> ModelCard:
        """Return the pool for a request.

        Args:
            model: What the client wrote; None for the only pool that has the mode.
            mode: What is to be made.

        Raises:
            ModelNotFound: No pool serves the model.
            ModelNeeded: No model was named and the choice is not obvious.
            InvalidRequest: The model makes something else.
        """
        fitting = tuple(card for card in self.pools if mode in card.modes)
        if model is None:
            if len(fitting) != 1:
                raise ModelNeeded(mode, [card.id for card in fitting], self.model_ids)
            return fitting[0]
        for card in self.named(model):
            if mode in card.modes:
                return card
        names = ", ".join(card.id for card in fitting) or "none is served here"
        raise InvalidRequest("model", model, f"one that makes {_MAKES[mode]} ({names})")

    def transform(self, stage: StageName) -> StageCard | None:
        """Return the card of a transform, or None if it is not installed."""
        return next((card for card in self.stages if card.stage is stage), None)
