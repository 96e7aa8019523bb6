"""Export: writes the adapters of a recording as files that PEFT and diffusers load."""

from pathlib import Path

from ..adapters.export import ExportedAdapter
from ..adapters.export import export_adapter as write_files
from ..core.config import Config, option
from ..core.errors import InvalidConfig


class ExportAdapterConfig(Config):
    """Which adapters are exported, and where to."""

    weights: Path | None = option(
        default=None, help="Folder of a trajectory, for its last snapshot; a snapshot; or a file of generated weights."
    )
    module: str | None = option(
        default=None, help="The files are for this module of the network, such as transformer; none: all of it."
    )
    output: Path = option(default=Path("adapter"), help="Folder of the files.", changes_result=False)
    overwrite: bool = option(default=False, help="Replace files in an existing folder.", changes_result=False)


def export_adapter(config: ExportAdapterConfig) -> ExportedAdapter:
    """Write the adapters of a recorded or generated network as files that PEFT and diffusers load.

        from metaopt import workflows

        recorded = workflows.record(
            workflows.TrainTargetConfig(run_name="lora", target_model="MLP", epochs=1, adapter="lora", rank=2)
        )
        config = workflows.ExportAdapterConfig(weights=recorded.folders[0], output="lora")
        print(workflows.export_adapter(config).modules)

    Raises:
        MetaoptError: as for `metaopt.adapters.export_adapter`; or the folder exists.
    """
    if config.weights is None:
        raise InvalidConfig(
            "nothing to export is given; give a folder: metaopt export-adapter trajectories/lora/seed_0"
        )
    if config.output.exists() and not config.overwrite:
        raise InvalidConfig(
            f"{config.output} exists; choose another --output, or give --overwrite to replace its files"
        )
    return write_files(config.weights, config.output, config.module or "")
