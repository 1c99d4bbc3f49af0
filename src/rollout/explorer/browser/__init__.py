"""What runs in the browser, and its other half in Python."""
