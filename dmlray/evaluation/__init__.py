"""Arrays in, numbers out: exact retrieval and clustering scores."""
