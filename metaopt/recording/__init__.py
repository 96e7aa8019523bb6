"""Phase 1: train target networks and record their weight trajectories."""
