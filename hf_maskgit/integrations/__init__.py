"""Engines that run functions over data, and other runtimes: a generator in the words of each."""
