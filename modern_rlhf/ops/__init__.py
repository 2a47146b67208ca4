"""Tensor operations that losses, advantages and trainers share. Import the defining module."""
