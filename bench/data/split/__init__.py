"""What a run trains and is tested on: the long tail, what is held out, and what is added."""
