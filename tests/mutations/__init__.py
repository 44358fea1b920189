"""Known bugs, one a patch with its reason: what holds the program together has to find each."""
