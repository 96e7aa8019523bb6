"""Weights as data: layouts, weight tokens and files. Pure functions over tensors."""
