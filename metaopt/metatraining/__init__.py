"""Phase 2: trains a generative optimizer, offline on recorded trajectories or online on inner trainings."""
