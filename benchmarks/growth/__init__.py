"""Measurements of growth: networks that grow against their twins, and controllers against each other."""
