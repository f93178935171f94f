"""Place: where a process stands among those that compute a model."""

from dataclasses import dataclass

import torch

from haast.config import EngineConfig, ModelConfig
from haast.engine.device import device_name
from haast.parallel.share import Share, shares_of


@dataclass(frozen=True)
class Place:
    """One of the ranks that a wish for devices makes; mostly there is one only."""

    config: EngineConfig
    devices: tuple[torch.device, ...]
    """of all ranks"""
    rank: int

    @property
    def device(self) -> torch.device:
        return self.devices[self.rank]

    @property
    def names(self) -> list[str]:
        """Of all ranks' devices, in short."""
        return [device_name(device).split()[0] for device in self.devices]

    def share(self, model: ModelConfig) -> Share:
        """What this rank has of a network. Raises ConfigError if it cannot be split so."""
        return shares_of(model, self.config.devices, len(self.devices))[self.rank]
