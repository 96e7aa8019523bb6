"""Phase 1: trains target networks and records their weight trajectories."""
