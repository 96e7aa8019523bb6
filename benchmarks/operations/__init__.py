"""Measurements of the queue, the ledger and what else watches over trainings."""
