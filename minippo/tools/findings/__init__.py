"""What `minippo doctor` can find: name, test, reason, remedy."""
