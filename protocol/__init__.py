"""What crosses a wire, and the rules of the exam as pure functions. No I/O happens in this package."""
