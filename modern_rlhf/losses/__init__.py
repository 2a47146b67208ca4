"""Losses: pure functions of tensors, one file a family. Import the defining module."""
