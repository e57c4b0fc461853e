"""Averages and merges of finished runs."""
