"""Where runs execute, and how one watches them."""
