"""Training one cell: build the method, run its epochs, score it, leave a record."""
