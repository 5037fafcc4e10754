"""The methods, one file each, readable beside its paper; importing a module here registers it."""
