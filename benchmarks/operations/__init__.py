"""Measurements of operations: queue, ledger, validation, curriculum."""
