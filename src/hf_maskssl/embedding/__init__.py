"""Features of a user's own data: embedding of rows, their neighbours, and their map."""
