"""Promotion: the alias `champion` moves to a new version only by a comparison, or where there is no champion yet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

from ..core.paired_test import PromotionDecision
from ..tracking import CHAMPION, MlflowTracker, RunReference, champion_version, promote

Compare = Callable[[], PromotionDecision]
"""Compares a version with the champion."""


class Promotion(NamedTuple):
    """A decision about the alias `champion`.

    Attributes:
        promoted: whether the version is champion now, or has the alias that the user asked for.
        sentence: which version is champion, and why.
    """

    promoted: bool
    sentence: str

    def log(self, tracker: MlflowTracker) -> Self:
        """Show the decision in the description of a run and in its tag `metaopt.promotion`; returns it."""
        tracker.tags({"metaopt.promotion": self.sentence})
        tracker.describe(links=self.sentence)
        return self


@dataclass(frozen=True)
class Made:
    """What a workflow has made.

    Attributes:
        run: the MLflow run.
        model_uri: URI of the registered version; None if nothing was registered.
        promotion: which version is champion, and why; None if nothing was registered.
    """

    run: RunReference
    model_uri: str | None
    promotion: Promotion | None


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

    @property
    def rival(self) -> str | None:
        """The URI of the present champion; None without one, and if it is this version."""
        return None if self.champion in (None, self.version) else f"models:/{self.name}/{self.champion}"

    def decide(self, compare: Compare | None = None) -> Promotion:
        """Promote the version if there is no champion, or if it beats the champion.

        Args:
            compare: compares it with its `rival`; called only if there is one. None: the two are not compared.
        """
        decided = self._verdict(compare)
        version = f"version {self.version} of {self.name}"
        if not decided.better:
            return Promotion(False, f"{version} is not promoted: {decided.reason}")
        promote(self.name, self.version)
        return Promotion(True, f"{version} is now {CHAMPION}: {decided.reason}")

    def _verdict(self, compare: Compare | None) -> PromotionDecision:
        if self.champion is None:
            return PromotionDecision(True, "there was no champion yet")
        if self.champion == self.version:
            return PromotionDecision(False, "it is the champion already")
        return compare() if compare else self.stays("were not compared")

    def stays(self, why: str) -> PromotionDecision:
        """The decision that the champion stays without a comparison, because the two "were not compared"."""
        return PromotionDecision(False, f"version {self.champion} stays {CHAMPION}, because the two {why}")
