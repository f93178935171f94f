"""Known-good speed and coherence, what came of them since, and the journal of it. No torch here."""
