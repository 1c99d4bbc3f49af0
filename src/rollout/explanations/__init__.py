"""From a model and an image to maps: explanations, sweeps, what is kept of them."""
