"""What a person looks at while and after something runs."""
