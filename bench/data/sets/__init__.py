"""The built-in data sets, what is known about published ones, and checks of a user's copy."""
