"""Phase 1 (train a target, record its trajectory) and phase 2 (train a generative optimizer on trajectories)."""
