"""Batches: sampled, augmented and normalised, from memory or from disk."""
