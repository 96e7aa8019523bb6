"""Phase 3: trains a controller, which decides when a network grows, by reinforcement learning."""
