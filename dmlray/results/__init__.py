"""What becomes of finished runs: averages, merges, comparisons."""
