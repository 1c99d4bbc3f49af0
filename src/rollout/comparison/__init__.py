"""Which map to believe: many maps of many images, measured, with controls and intervals."""
