"""An ensemble: many members on the actors of a cluster, and the merge of their embeddings."""
