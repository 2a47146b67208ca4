"""The command line, split by concern: `parser`, `errors`, `commands`, `doctor`. Floor 7."""
