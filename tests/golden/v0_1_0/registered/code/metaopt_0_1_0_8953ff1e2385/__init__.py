"""What metaopt needs to load and ask this optimizer, as it was when the optimizer was registered."""
