"""The methods, one file each, to be read beside its paper; importing a module registers its methods."""
