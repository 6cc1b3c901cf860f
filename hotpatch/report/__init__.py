"""Text, JSON and HTML from the values of the other rooms. Prints nothing itself."""
