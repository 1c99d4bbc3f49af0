"""The demo model and its world: emoji scenes with the exact place of every object."""
