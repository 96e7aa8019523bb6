"""What a dashboard shows, and who may see it."""

import os
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ...core.config import Config, option
from ...core.errors import InvalidConfig
from ...core.text import shown

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine that only its own programs reach, as they are in an address."""


class DashboardConfig(Config):
    """Parameters of `metaopt dashboard`."""

    queue: str | None = option(
        default=None, help="Queue to show: a file, or postgresql://…; by default METAOPT_QUEUE, then queue.db."
    )
    host: str = option(default=LOOPBACK[0], help="Address to listen at; others than 127.0.0.1 let other machines in.")
    port: int = option(default=8600, help="Port to listen at; 0: any free one.", at_least=0, at_most=65535)
    allowed_hosts: tuple[str, ...] = option(
        default=(), help="Further names of this machine by which browsers may ask, such as box.example.org."
    )
    token_file: Path | None = option(
        default=None, help="File with the token that changes need; by default METAOPT_DASHBOARD_TOKEN, then a new one."
    )
    mlflow_url: str | None = option(
        default=None, help="Address of the MLflow UI, for links; by default MLFLOW_TRACKING_URI if it is a server."
    )
    tracking_uri: str | None = option(
        default=None, help="Store of the losses; by default MLFLOW_TRACKING_URI, then mlflow.db in the folder of a job."
    )
    trajectory_dir: Path = option(default=Path("trajectories"), help="Folder of trajectories.")
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of checkpoints.")
    refresh: float = option(default=1.0, help="Time between two looks at the queue [s].", at_least=0.05, at_most=3600.0)

    def __post_init__(self) -> None:
        """Check each value.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        for name in (self.host, *self.allowed_hosts):
            if not name or any(not each.isprintable() or each in "/@?#*, " for each in name):
                raise InvalidConfig(f"host is {shown(name)}; expected a name or an address, such as box.example.org")
        if self.mlflow_url is not None and not _is_web_address(self.mlflow_url):
            raise InvalidConfig(
                f"mlflow_url is {shown(self.mlflow_url)}; expected an address such as http://127.0.0.1:5000"
            )

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach the dashboard."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def ui(self) -> str | None:
        """Address of the MLflow UI without a slash at the end; None if it is not known."""
        address = self.mlflow_url or os.environ.get("MLFLOW_TRACKING_URI", "")
        parts = urlsplit(address) if _is_web_address(address) else None
        if parts is None or (parts.username and not self.mlflow_url):  # a password is not for readers of the page
            return None
        return address.rstrip("/")

    def store_of(self, folder: str) -> str | None:
        """Address of the tracking store of a job; None if there is none on this machine.

        Args:
            folder: working folder of the job.
        """
        if uri := self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"):
            return uri
        file = Path(folder, "mlflow.db")
        return f"sqlite:///{file}" if file.is_file() else None


def _is_web_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and address.isprintable()
