"""Cards: the descriptions of registered optimizers, with training data, evaluations, usage and limits.

The card of a version is its description. The page of the registered model shows the card of its champion.
"""

import hashlib

from mlflow import MlflowClient

from ..generative.base import GenerativeOptimizer
from .lineage import logged_model_id
from .tags import CARD_TAG, DESCRIPTION_TAG

_EVALUATIONS = "**In training, on held-out random seeds:**"  # marks the place of evaluations, also in stored cards
_LONGEST_CARD = 5000  # [characters], accepted by every store

_CARD = """\
{optimizer}: predicts the weights of a network at a later step from snapshots of its training.
{about}
**Input:** up to {history} snapshots of {snapshots}, {stride:g} steps apart.

{evaluations} not yet; run `metaopt evaluate --optimizer models:/{name}/{version}`.

**Load it in two lines:**

```
import metaopt
optimizer = metaopt.load_optimizer("models:/{name}/{version}")
```

`metaopt.Nowcast(…, optimizer)` uses it in your own training; \
`mlflow.pyfunc.load_model("models:/{name}/{version}")` works without metaopt.

**Limits:** on other architectures, tasks, learning rates and horizons than those of its training, expect a smaller \
gain or none. Keep the guard enabled, and compare with linear extrapolation and weight averaging, which need no \
training.
Trained by run {run}
"""


def version_card(
    about: str, optimizer: GenerativeOptimizer, name: str, version: int, *, stride: float, run: str
) -> str:
    """The card of a version without evaluations.

    Args:
        about: task, data and figures of its training, in Markdown.
        stride: steps between snapshots in its training [steps].
        run: link to the run that trained it.
    """
    average = f"an exponential moving average of the weights (decay {optimizer.averaging:g})"
    return _CARD.format(
        optimizer=type(optimizer).__name__,
        about=about,
        history=optimizer.history,
        snapshots=average if optimizer.averaging else "the weights",
        stride=stride,
        evaluations=_EVALUATIONS,
        name=name,
        version=version,
        run=run,
    )


def with_evaluation(card: str, evaluation: str) -> str:
    """Add an evaluation to a card, the newest first. A card that would become too long is returned unchanged."""
    head, marker, rest = card.partition(_EVALUATIONS)
    older = rest.partition("\n")[2]
    if marker:
        extended = f"{head}{_EVALUATIONS}\n- {evaluation}\n{older}"
    else:
        extended = f"{card}\n\n{_EVALUATIONS}\n- {evaluation}\n"
    return extended if len(extended) <= _LONGEST_CARD else card


def describe_version(client: MlflowClient, name: str, version: int, card: str) -> None:
    """Set the card of a version and of its logged model."""
    client.update_model_version(name, str(version), card)
    model_id = logged_model_id(client, name, version)
    if model_id:
        client.set_logged_model_tags(model_id, {DESCRIPTION_TAG: card})


def describe_champion(client: MlflowClient, name: str, version: int, alias: str) -> None:
    """Show the card of a version on the page of the registered model, unless a user wrote a description there."""
    model = client.get_registered_model(name)
    if model.description and model.tags.get(CARD_TAG) != _digest(model.description):
        return
    card = client.get_model_version(name, str(version)).description or ""
    text = f"**{alias}: version {version}.** Trained with metaopt.\n\n{card}"[:_LONGEST_CARD]
    client.update_registered_model(name, text)
    client.set_registered_model_tag(name, CARD_TAG, _digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
