"""Batches of images on a device: samplers, crops, loader."""
