"""`metaopt generate`: next-step weights, from files to a file."""

from ..generation import GenerateConfig, generate
from ..nowcast import load_optimizer
from ..tracking import start_run
from ..weights.files import files_of
from .options import config_command
from .results import Result, where


@config_command(GenerateConfig, "generate")
def command(config: GenerateConfig) -> Result:
    """Generate the weights of a later step from a recorded trajectory."""
    optimizer = load_optimizer(config.optimizer)
    does = f"Generates weights of a later step from {config.trajectory} with {config.optimizer}."
    tags = {"metaopt.phase": "generation"}
    with start_run(f"generate {config.output.name}", config, tags=tags, description=does) as tracker:
        generated = generate(config, optimizer)
        tracker.files(files_of(generated.path), "weights")
        told = f"weights for step {generated.t_end:g}, from step {generated.t_start:g}"
        tracker.note(result=f"{told}.")
    return Result(
        {"run_id": tracker.run_id, **generated._asdict()},
        {
            "generated": f"{told}: {generated.path}",
            "run": where(tracker),
            "use": f"metaopt.load_model_weights(model, {str(generated.path)!r}) in Python",
        },
    )
