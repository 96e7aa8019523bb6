"""The dashboard: one page and a JSON API that show a queue with all that belongs to it, and steer its jobs.

    from metaopt.operations.dashboard import Dashboard, DashboardConfig
    from metaopt.operations.queue import JobQueue

    JobQueue("queue.db").close()  # makes it
    with Dashboard(DashboardConfig(queue="queue.db")) as dashboard:
        app = dashboard.app  # an ASGI application; `metaopt dashboard` serves it

It needs the extra `metaopt[operations]`.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_names

if TYPE_CHECKING:
    from .config import DashboardConfig as DashboardConfig
    from .dashboard import Dashboard as Dashboard
    from .server import serve as serve

_MODULES = {"Dashboard": "dashboard", "DashboardConfig": "config", "serve": "server"}

__all__ = [*_MODULES]
__getattr__ = lazy_names(__name__, _MODULES)
