"""Small tools of the ground floor: atomic writes, locks, JSON lines. Standard library at import."""
