"""The explorer: every knob of a map beside the map."""
