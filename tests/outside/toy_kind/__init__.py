"""A kind of data of another distribution: series written as text."""
