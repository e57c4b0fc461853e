"""What is to be done: frozen, picklable, checked; nothing runs here."""
