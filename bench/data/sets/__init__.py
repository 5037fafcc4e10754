"""Which data sets there are, what is known of published ones, and whether a copy is one of them."""
