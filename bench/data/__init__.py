"""Data sets, the long tails drawn from them, and the batches of a run."""
