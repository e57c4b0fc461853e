"""Cache of decoded images: decoded once per machine, shared between processes."""
