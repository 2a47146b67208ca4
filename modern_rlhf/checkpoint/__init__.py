"""Everything that must survive a kill: training state to files (`state`, `files`) and folders (`store`)."""
