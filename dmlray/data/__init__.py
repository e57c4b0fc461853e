"""From image files to batches of tensors."""
