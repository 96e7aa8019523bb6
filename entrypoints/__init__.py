"""One script per MLproject entry point, each running the command of the same name."""
