"""Programs: each tells a story, and the library holds its parts."""
