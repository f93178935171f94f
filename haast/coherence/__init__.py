"""Is what comes out of a model still language? The guard that every change must pass."""

from haast.coherence.guard import Check, Report, check_coherence

__all__ = ["Check", "Report", "check_coherence"]
