"""Models on floor 2: loading by name, heads, and the one forward that yields response log-probs."""
