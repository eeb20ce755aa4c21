"""One frozen detection backbone, many small independent heads."""
