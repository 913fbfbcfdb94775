"""Every setting of a run, once. Command line, presets, GUI controls, validation and docs derive from this schema.

Each section has a file; ``checks`` holds what sections say of each other.
"""

from __future__ import annotations

from pydantic import model_validator

from morelora import AdapterConfig
from trainer.config.base import Level, Precision, Section, setting
from trainer.config.checkpoint import CheckpointConfig
from trainer.config.checks import CHECKS
from trainer.config.data import DataConfig
from trainer.config.device import DeviceConfig
from trainer.config.embedding import EmbeddingConfig
from trainer.config.loss import LossConfig
from trainer.config.model import ModelConfig
from trainer.config.optimizer import OptimizerConfig
from trainer.config.output import ExportConfig, RunConfig
from trainer.config.preview import PreviewConfig
from trainer.config.relora import ReloraConfig
from trainer.config.track import TrackConfig
from trainer.config.train import TrainConfig
from trainer.config.validation import ValidationConfig

__all__ = [
    "CheckpointConfig", "Config", "DataConfig", "DeviceConfig", "EmbeddingConfig", "ExportConfig", "Level", "LossConfig",
    "ModelConfig", "OptimizerConfig", "Precision", "PreviewConfig", "ReloraConfig", "RunConfig", "Section", "TrackConfig",
    "TrainConfig", "ValidationConfig", "setting",
]  # fmt: skip


class Config(Section):
    """All settings of a run, in the order of the GUI."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    adapter: AdapterConfig = AdapterConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    train: TrainConfig = TrainConfig()
    device: DeviceConfig = DeviceConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    relora: ReloraConfig = ReloraConfig()
    loss: LossConfig = LossConfig()
    validation: ValidationConfig = ValidationConfig()
    preview: PreviewConfig = PreviewConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    export: ExportConfig = ExportConfig()
    track: TrackConfig = TrackConfig()

    @property
    def reads_captions_live(self) -> bool:
        """Whether what the text encoders give changes while the run trains: captions then cannot be encoded once."""
        return self.train.text_encoder or self.embedding.vectors > 0

    @property
    def keeps_prior(self) -> bool:
        """Whether the loss also asks for captions without the trigger."""
        return self.loss.prior_preservation > 0

    @model_validator(mode="after")
    def _is_consistent(self) -> Config:
        problem = next((problem for check in CHECKS for problem in check(self)), None)
        if problem:
            raise ValueError(problem)
        return self
