"""To the Hub, with a card, and checked in a fresh process first."""
