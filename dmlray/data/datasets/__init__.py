"""Data sets: what each is called, how its files lie, and whether they are all there."""
