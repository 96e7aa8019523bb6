"""Use a generative optimizer inside an ordinary PyTorch training.

Each of these modules calls the next one: `optimizer` (what users see), `steps` (the steps of a training), `schedule`
(which of the nowcasts that are due take place), `nowcasts` (a forecast is accepted, and the weights follow it),
`proposals` (forecasts that the guard has measured), `forecasts`. They act on `tracked_weights`: the network, its last
snapshots and its averages.
"""

from .guards.data_guard import guard_from
from .optimizer import Nowcast
from .policy import NowcastEvent, NowcastPolicy
from .reestimation import reestimate_batchnorm

__all__ = ["Nowcast", "NowcastEvent", "NowcastPolicy", "guard_from", "reestimate_batchnorm"]
