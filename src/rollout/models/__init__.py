"""Models ready to be explained: networks, weights, preprocessing, labels, layout."""
