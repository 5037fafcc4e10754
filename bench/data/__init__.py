"""Data sets, the long tails cut from them, and the batches a run trains on."""
