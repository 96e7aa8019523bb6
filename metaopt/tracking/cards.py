"""The cards of registered optimizers: what a version is, how it did, how to load it; and whether the card is ours.

A version's card is its description. The registered model's own page shows that of its champion.
"""

import hashlib

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from ..generative.base import GenerativeOptimizer
from .lineage import logged_model_id

CARD_TAG = "metaopt.card"
"""Tag of a registered model: digest of the description that metaopt gave it, by which one of a person's is known."""

_JUDGED = "**In training, on held-out random seeds:**"
_LONGEST = 5000  # characters that every store takes in a description

_CARD = """\
{what}: given past weights of a network and two times, it answers with the weights at the later time.
{about}
**Is shown:** up to {history} snapshots of {snapshots}, {stride:g} steps apart.

{judged} not yet; `metaopt evaluate --optimizer models:/{name}/{version}` does it.

**Load it in two lines:**

```
import metaopt
optimizer = metaopt.load_optimizer("models:/{name}/{version}")
```

As `metaopt.Nowcast(…, optimizer)` it works inside your own training; \
`mlflow.pyfunc.load_model("models:/{name}/{version}")` needs no metaopt.

**Limits:** it knows what it has learned from. On other architectures, tasks, learning rates and horizons expect less, \
down to nothing; keep the guard on, and compare with a straight line and an average of weights, which are free.
Trained by run {run}
"""


def version_card(
    about: str, optimizer: GenerativeOptimizer, name: str, version: int, *, stride: float, run: str
) -> str:
    """The card of a version that nobody has judged yet.

    Args:
        about: task, data and figures of its training, in Markdown.
        stride: steps between snapshots in its training [steps].
        run: link to the run that trained it.
    """
    averaged = f"a running average of the weights (decay {optimizer.averaging:g})"
    return _CARD.format(
        what=type(optimizer).__name__,
        about=about,
        history=optimizer.history,
        snapshots=averaged if optimizer.averaging else "the weights",
        stride=stride,
        judged=_JUDGED,
        name=name,
        version=version,
        run=run,
    )


def with_judgement(card: str, judgement: str) -> str:
    """A card with one more evaluation, the newest first; unchanged where it would be longer than a store takes."""
    head, found, rest = card.partition(_JUDGED)
    older = rest.partition("\n")[2]
    longer = f"{head}{_JUDGED}\n- {judgement}\n{older}" if found else f"{card}\n\n{_JUDGED}\n- {judgement}\n"
    return longer if len(longer) <= _LONGEST else card


def show_version(client: MlflowClient, name: str, version: int, card: str) -> None:
    """Give a version its card, and the logged model behind it, too."""
    client.update_model_version(name, str(version), card)
    model_id = logged_model_id(client, name, version)
    if model_id:
        client.set_logged_model_tags(model_id, {MLFLOW_RUN_NOTE: card})


def show_champion(client: MlflowClient, name: str, version: int, alias: str) -> None:
    """Let the registered model's page show the card of a version, unless a person has written a description there."""
    model = client.get_registered_model(name)
    ours = model.tags.get(CARD_TAG)
    if model.description and ours != _digest(model.description):
        return
    card = client.get_model_version(name, str(version)).description or ""
    text = f"**{alias}: version {version}.** A learned optimizer, trained with metaopt.\n\n{card}"[:_LONGEST]
    client.update_registered_model(name, text)
    client.set_registered_model_tag(name, CARD_TAG, _digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
