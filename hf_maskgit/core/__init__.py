"""All that a checkpoint takes along: flat siblings that need torch and transformers alone."""
