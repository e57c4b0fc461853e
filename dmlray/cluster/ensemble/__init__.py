"""Train the members of an ensemble on actors of a cluster, and merge their embeddings."""
