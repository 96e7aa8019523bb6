"""Phase 2: train a generative optimizer on recorded pairs of snapshots, or online in inner trainings."""
