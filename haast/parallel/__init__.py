"""One model on several devices: who has what of it, and how they add up."""
