"""Measurements of operations: the queue, the ledger, validation and what else watches over trainings."""
