"""Rewards on floor 2: texts in, named components out; `base` holds the one protocol."""
