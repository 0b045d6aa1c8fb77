"""What changes or drops the utterances of a manifest: filter, combine, split, pseudo-label, leaks. A command a file."""
