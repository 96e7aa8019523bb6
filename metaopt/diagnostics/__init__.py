"""Diagnostics: measurements of predictions from the states of one hold run, the inspector, and report folders.

    run = ProbedRun(setup, evaluation.hold_run(setup).snapshots)
    diagnostics = diagnose(run, optimizer)
    print(diagnostics.layers.names, diagnostics.layers.cosine.mean(0))  # predicted against true changes

`metaopt.reporting.charts` draws them. `inspector` reads headers of safetensors files, `report_folder` writes
`reports/<tool>/<tag>/`; neither imports torch.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_names

if TYPE_CHECKING:
    from .attention import Attention as Attention
    from .horizons import Horizons as Horizons
    from .layers import Layers as Layers
    from .measurements import Diagnostics as Diagnostics
    from .measurements import diagnose as diagnose
    from .plane import Plane as Plane
    from .probed_run import ProbedRun as ProbedRun

_MODULES = {
    "Attention": "attention",
    "Diagnostics": "measurements",
    "Horizons": "horizons",
    "Layers": "layers",
    "Plane": "plane",
    "ProbedRun": "probed_run",
    "diagnose": "measurements",
}

__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)
