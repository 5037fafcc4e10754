"""The images of a run: long tail, held-out images and extra images."""
