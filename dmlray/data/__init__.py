"""Data pipeline: image files -> batches of tensors."""
