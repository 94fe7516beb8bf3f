"""Every claim as a command. Knows the algorithm and the starter's readers, nothing of the app."""
