"""Vectors of any number of images, on Ray Data."""
