"""The version, in its only place: packaging reads it from here without importing anything."""

__version__ = "0.1.0"
