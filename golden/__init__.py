"""What a number is, and bit for bit what each circuit computes: numpy only, no hardware."""
