"""A small growing network for tests of reinforcement learning: a few milliseconds for each decision."""

GROWTH = {
    "interval": 2,
    "train_steps": 2,
    "blend_steps": 2,
    "probation_steps": 0,
    "embargo_steps": 2,
    "examples": 32,
}
EPISODE = {
    "task": "digits",
    "target_options": {"widths": [4, 6, 8]},
    "batch_size": 32,
    "lr": 0.01,
    "steps": 20,
    "growth_options": GROWTH,
    "train_seeds": 3,
}
