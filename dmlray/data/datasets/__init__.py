"""Data sets: registry, file layouts and verification."""
