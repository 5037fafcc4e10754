"""Batches: drawn, augmented and normalised, from memory or from disk."""
