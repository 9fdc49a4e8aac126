"""Number formats and, bit for bit, the function of each circuit: numpy only, no hardware."""
