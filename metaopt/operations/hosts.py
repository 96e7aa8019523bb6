"""Hosts: a YAML file that names machines, what each is for, its addresses and its devices. No address is in the code.

    laptop:
      roles: [worker, queue, storage]
      queue_url: sqlite:///queue.db
      storage: .
    gpu-1:
      roles: [worker]
      devices: [cuda:0, cuda:1]
      parameters: {device: cuda:0, data_dir: /data}

`parameters` are those of any workflow that are right on this machine: the layer `machine` of a configuration.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.addresses import without_password
from ..core.config import Config, Options, option
from ..core.errors import InvalidConfig, MetaoptError, UnknownName
from ..core.registry import suggest
from ..core.text import shown
from ..core.yaml_values import lines_of_names, read_values_file
from .layers import Given, Layer, Origin, shared_layer

HOSTS = Path("hosts.yaml")
"""The file that is read by default."""

ROLES: Mapping[str, str | None] = {
    "worker": None,
    "tracking": "tracking_url",
    "queue": "queue_url",
    "storage": "storage",
}
"""What a machine can be for, and the parameter that the role needs."""


class HostConfig(Config):
    """A machine."""

    roles: tuple[str, ...] = option(default=("worker",), help="What it is for: worker, tracking, queue, storage.")
    tracking_url: str | None = option(default=None, help="Address of its MLflow server.")
    queue_url: str | None = option(default=None, help="Address of the database of its queue.")
    storage: Path | None = option(default=None, help="Folder of its files, as this machine sees it.")
    devices: tuple[str, ...] = option(default=("cpu",), help="Devices of its workers, such as cuda:0.")
    parameters: Options = option(default={}, help="Parameters of workflows on it, such as device, workers, data_dir.")

    def __post_init__(self) -> None:
        """Check each value, the roles, and that each role has its address.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        for role in self.roles:
            if role not in ROLES:
                raise InvalidConfig(f"roles has {shown(role)}: {suggest(role, ROLES)}")
            needed = ROLES[role]
            if needed is not None and getattr(self, needed) is None:
                raise InvalidConfig(f"the role {role} needs {needed}, which is missing; give it, or leave the role out")

    @property
    def addresses(self) -> dict[str, str]:
        """Its addresses by role, without user names and passwords."""
        values = {role: getattr(self, name) for role, name in ROLES.items() if name is not None}
        return {role: without_password(str(value)) for role, value in values.items() if value is not None}


def read_hosts(path: Path = HOSTS) -> dict[str, HostConfig]:
    """The machines of a file by their names.

    Raises:
        InvalidConfig: the file cannot be read, or a machine is invalid; the message names it.
    """
    values = read_values_file(path)
    if not isinstance(values, dict) or not values:
        raise InvalidConfig(
            f"{path} contains {shown(values)}; expected machines, such as `laptop: {{roles: [worker]}}`"
        )
    return {name: _host(path, name, each) for name, each in values.items()}


def machine_layer(path: Path, machine: str, workflow: str) -> Layer:
    """The parameters of a workflow that a file states for a machine.

    Raises:
        UnknownName: the file does not name the machine.
        InvalidConfig: the file is invalid, or names an unknown parameter.
    """
    hosts = read_hosts(path)
    if machine not in hosts:
        raise UnknownName(f"{path} names no machine {shown(machine)}: {suggest(machine, hosts)}")
    lines, way = lines_of_names(path), (machine.replace("-", "_"), "parameters")
    values = {
        name.replace("-", "_"): Given(value, Origin("machine", path, lines.get((*way, name.replace("-", "_")))))
        for name, value in hosts[machine].parameters.items()
    }
    return shared_layer(values, workflow, f"the machine {machine} of {path}")


def _host(path: Path, name: str, values: Any) -> HostConfig:
    if not isinstance(values, Mapping):
        raise InvalidConfig(
            f"the machine {shown(name)} of {path} is {shown(values)}; expected names with values, such as "
            "`roles: [worker]`"
        )
    try:
        return HostConfig.from_mapping({each.replace("-", "_"): value for each, value in values.items()})
    except MetaoptError as error:
        raise InvalidConfig(f"the machine {shown(name)} of {path}: {error}") from error
