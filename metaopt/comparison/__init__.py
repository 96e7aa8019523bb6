"""Comparison of a user's own training function with and without nowcasts.

`Trial` is what the function receives, `compare` of `metaopt.workflows.training_comparison` runs it.
"""
