"""Everything that must survive a kill: state to files (`state`, `files`) and folders (`store`)."""
