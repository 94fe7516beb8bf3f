"""Every claim as a command. Knows the command line and the starter's readers, nothing of the app."""
