"""From texts and options to a trained generator, with Accelerate."""
