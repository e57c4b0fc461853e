"""Images decoded once per machine, and shared between processes."""
