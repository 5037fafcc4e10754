"""Pieces that several methods share, under the names the field uses."""
