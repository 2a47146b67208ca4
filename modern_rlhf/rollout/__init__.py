"""Rollouts on floor 3: prompts in, sampled and scored episodes out."""
