"""Promotion: the alias `champion` moves to a new version only by a comparison, or where there is no champion yet."""

from dataclasses import dataclass
from typing import NamedTuple, Self

from ..evaluation.promotion import PromotionDecision, compare_with_champion
from ..evaluation.results import Comparison
from ..generative.base import GenerativeOptimizer
from ..generative.files import load_optimizer
from ..tracking import CHAMPION, champion_version, promote

_FIRST = "there was no champion yet"


class Promotion(NamedTuple):
    """A decision about the alias `champion`.

    Attributes:
        promoted: whether the version is champion now, or has the alias that the user asked for.
        sentence: which version is champion, and why.
    """

    promoted: bool
    sentence: str


@dataclass(frozen=True)
class Candidate:
    """A registered version that may become champion.

    Attributes:
        name: name of the registered model.
        version: number of the version.
        champion: number of the present champion; None without one.
    """

    name: str
    version: int
    champion: int | None

    @classmethod
    def of(cls, name: str, version: int) -> Self:
        """A version, and the present champion of its name.

        Raises:
            TrackingError: the store cannot be read.
        """
        return cls(name, version, champion_version(name))

    @property
    def uri(self) -> str:
        """The URI of the version."""
        return f"models:/{self.name}/{self.version}"

    def load_champion(self) -> GenerativeOptimizer | None:
        """Load the present champion if it is another version."""
        return None if self.champion in (None, self.version) else load_optimizer(f"models:/{self.name}/{self.champion}")

    def decide(self, comparison: Comparison) -> Promotion:
        """Promote the version if it beats the champion in a comparison."""
        return self._apply(self._verdict(comparison))

    def decide_without_comparison(self) -> Promotion:
        """Promote the version if there is no champion."""
        if self.champion is None:
            return self._apply(PromotionDecision(True, _FIRST))
        reason = f"version {self.champion} stays {CHAMPION}, because the two were not compared"
        return self._apply(PromotionDecision(False, reason))

    def _verdict(self, comparison: Comparison) -> PromotionDecision:
        if self.champion is None:
            return PromotionDecision(True, _FIRST)
        if self.champion == self.version:
            return PromotionDecision(False, "it is the champion already")
        return compare_with_champion(comparison)

    def _apply(self, decided: PromotionDecision) -> Promotion:
        version = f"version {self.version} of {self.name}"
        if not decided.better:
            return Promotion(False, f"{version} is not promoted: {decided.reason}")
        promote(self.name, self.version)
        return Promotion(True, f"{version} is now {CHAMPION}: {decided.reason}")
