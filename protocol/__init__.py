"""Messages, subjects, keys and streams, and the rules of the exam as pure functions. This package does no I/O."""
