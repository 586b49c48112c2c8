"""Progress that shows nothing: the command that builds prints the image's ID and nothing else."""

from __future__ import annotations

from builder.events import Event


class Quiet:
    """Takes every event and keeps none."""

    def emit(self, event: Event) -> None:
        """Drop the event."""

    def close(self) -> None:
        """Nothing is open."""
