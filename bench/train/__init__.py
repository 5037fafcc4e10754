"""Training one cell: build the method, run its epochs, evaluate it, write a record."""
