"""A trained model without its training images: load, embed, export, search."""
