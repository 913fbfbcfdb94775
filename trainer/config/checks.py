"""Combinations of settings that contradict each other or would be ignored: each is refused with its fix.

A check takes the whole ``Config`` and yields what is wrong; the first complaint is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from trainer.config.base import Section
from trainer.config.embedding import stands_in
from trainer.trigger import PLACE

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.config.showing import ShowingConfig


def _data(config: Config) -> Iterator[str]:
    data = config.data
    if data.images and data.sources:
        yield "data.images and data.sources are both given: name that folder as one of the sources"
    if data.sources and all(source.regularization for source in data.sources):
        yield "data.sources hold regularization pictures alone: there is nothing to learn"
    if data.mask_folder and "files" not in (data.mask, *(source.mask for source in data.sources)):
        yield "data.mask_folder has no effect unless data.mask = 'files'"
    for index, source in enumerate(data.sources):
        if source.mask_folder and source.over(data).mask != "files":
            yield f"data.sources[{index}].mask_folder has no effect unless its mask = 'files'"
        if source.regularization and source.trigger:
            yield f"data.sources[{index}].trigger has no effect: regularization pictures are seen without the trigger"


def _batches(config: Config) -> Iterator[str]:
    if config.train.batch_size == 1:
        yield from _idle(config.data, "data", ("partial_batches",), "train.batch_size = 1: no batch lacks a picture")


def _resolutions(config: Config) -> Iterator[str]:
    data = config.data
    if data.resolutions and data.resolution not in data.resolutions:
        yield f"data.resolutions must name data.resolution = {data.resolution} too, the side of the previews"
    if len(data.resolutions) == 1 or len(set(data.resolutions)) < len(data.resolutions):
        yield "data.resolutions must be several different sides: leave it empty for data.resolution alone"
    if wrong := [side for side in data.resolutions if not 32 <= side <= 4096]:
        yield f"data.resolutions holds {wrong[0]}: sides are 32 to 4096 pixels"


def _showing(config: Config) -> Iterator[str]:
    data = config.data
    for index, source in enumerate(data.sources):
        yield from _shown(source.over(data), f"data.sources[{index}]")
    if not data.sources:
        yield from _shown(data, "data")


def _shown(folder: ShowingConfig, name: str) -> Iterator[str]:
    if folder.crop == "center":
        yield from _idle(folder, name, ("crops", "crop_keep"), f"{name}.crop = 'center'")
    strengths = folder.color_jitter
    if strengths and (len(strengths) != 4 or min(strengths) < 0 or max(strengths[:3]) > 1 or strengths[3] > 0.5):
        yield f"{name}.color_jitter needs four strengths: brightness, contrast and saturation up to 1, hue up to 0.5"
    if not any(strengths):
        yield from _idle(folder, name, ("color_variants", "color_jitter"), f"{name}.color_jitter changes nothing")
    if not (folder.shuffle_tags or folder.tag_dropout):
        yield from _idle(folder, name, ("keep_tags",), f"{name}.shuffle_tags = false and {name}.tag_dropout = 0")


def _model(config: Config) -> Iterator[str]:
    if config.model.zero_terminal_snr and config.model.objective == "epsilon":
        yield "model.zero_terminal_snr needs model.objective = 'v_prediction' (or 'auto', where the base says so)"


def _train(config: Config) -> Iterator[str]:
    if not (config.train.unet or config.train.text_encoder or config.embedding.vectors):
        yield "train.unet, train.text_encoder and embedding.vectors are all off: nothing would be trained"


def _embedding(config: Config) -> Iterator[str]:
    embedding, trigger = config.embedding, config.data.trigger
    if not embedding.vectors:
        yield from _idle(embedding, "embedding", tuple(type(embedding).model_fields), "embedding.vectors = 0")
        return
    if not (embedding.token or trigger).strip():
        yield "embedding.vectors needs a word: set data.trigger, which also puts it into the captions"
    elif not stands_in(embedding.token or trigger, trigger):
        yield f"embedding.token = {embedding.token!r} is not in data.trigger = {trigger!r}, so that no caption would have it"
    if not (config.train.unet or config.train.text_encoder):
        if embedding.freeze_after < 1:
            yield "embedding.freeze_after would leave nothing to train: it is for a word together with an adapter"
        if embedding.bundle:
            yield "embedding.bundle has no effect without an adapter: train.unet and train.text_encoder are both off"
        if config.loss.prior_preservation:
            yield "loss.prior_preservation has no effect without an adapter: captions without the word stay as they are"
        if config.train.init_from is not None:
            yield "train.init_from has no effect without an adapter: train.unet and train.text_encoder are both off"
    if embedding.bundle and (config.export.format == "diffusers" or "diffusers" in config.export.readers):
        yield "embedding.bundle: diffusers refuses a file with a word in it, so a file for diffusers needs it off"
    if config.optimizer.name == "prodigy" and embedding.lr != config.optimizer.lr:
        yield f"prodigy finds one rate for all: set embedding.lr = {config.optimizer.lr:g} (optimizer.lr), or use 'adamw'"


def _optimizer(config: Config) -> Iterator[str]:
    optimizer = config.optimizer
    if optimizer.text_encoder_lr is not None and not config.train.text_encoder:
        yield "optimizer.text_encoder_lr has no effect while train.text_encoder = false"
    if optimizer.text_encoder_2_lr is not None and not config.train.text_encoder:
        yield "optimizer.text_encoder_2_lr has no effect while train.text_encoder = false"
    if config.train.steps and optimizer.warmup >= 1 and optimizer.warmup >= config.train.steps:
        yield f"optimizer.warmup ({optimizer.warmup:g}) must be less than train.steps ({config.train.steps})"
    for name, schedule in (("cycles", "cosine_restarts"), ("power", "polynomial")):
        default = type(optimizer).model_fields[name].default
        if getattr(optimizer, name) != default and optimizer.schedule != schedule:
            yield f"optimizer.{name} has no effect unless optimizer.schedule = {schedule!r}"
    if optimizer.min_lr_ratio and optimizer.schedule == "constant":
        yield "optimizer.min_lr_ratio has no effect with optimizer.schedule = 'constant'"


def _low_rank_rates(config: Config) -> Iterator[str]:
    """LoRA+ and GaLore."""
    optimizer = config.optimizer
    if optimizer.lora_plus_ratio is not None and optimizer.name == "prodigy":
        yield "prodigy finds one rate for all: remove optimizer.lora_plus_ratio, or use 'adamw'"
    if optimizer.galore_rank is not None and optimizer.name != "adamw":
        yield f"optimizer.galore_rank works with optimizer.name = 'adamw' only, not {optimizer.name!r}"
    for name in ("galore_interval", "galore_scale"):
        if getattr(optimizer, name) != type(optimizer).model_fields[name].default and optimizer.galore_rank is None:
            yield f"optimizer.{name} has no effect unless optimizer.galore_rank is set"


def _relora(config: Config) -> Iterator[str]:
    relora = config.relora
    if not relora.every:
        yield from _idle(relora, "relora", ("keep", "warmup"), "relora.every = 0")
        return
    if config.train.steps and relora.every >= config.train.steps:
        yield f"relora.every ({relora.every}) must be less than train.steps ({config.train.steps}): it would never begin again"
    if relora.warmup >= relora.every:
        yield f"relora.warmup ({relora.warmup}) must be less than relora.every ({relora.every})"
    if config.adapter.weight_decompose:
        yield "relora.every does not go together with adapter.weight_decompose: magnitudes of several cycles do not add up"
    if config.adapter.max_norm is not None:
        yield "adapter.max_norm cannot limit the sum of relora's cycles: remove it, or set relora.every = 0"


def _optimizer_name(config: Config) -> Iterator[str]:
    optimizer, name = config.optimizer, config.optimizer.name
    unset = [key for key in ("beta1", "beta2", "weight_decay") if getattr(optimizer, key) is not None]
    if name == "adafactor":
        unset = [key for key in unset if key != "weight_decay"]
    if unset and (name == "adafactor" or "." in name):
        yield f"optimizer.{unset[0]} is not passed to {name}: leave it empty and use optimizer.arguments"
    rates = {rate for rate in (optimizer.text_encoder_lr, optimizer.text_encoder_2_lr) if rate is not None}
    rates |= {rule.lr for rule in config.adapter.rules if rule.lr is not None}
    if name == "prodigy" and rates - {optimizer.lr}:
        yield "prodigy finds one rate for all: remove text_encoder_lr, text_encoder_2_lr and the rules' lr, or use 'adamw'"
    if name == "schedule_free":
        if optimizer.schedule != "constant":
            yield "optimizer.name = 'schedule_free' replaces the schedule: set optimizer.schedule = 'constant'"
        if config.train.ema:
            yield "train.ema and optimizer.name = 'schedule_free' both average: set train.ema = 0"
        if config.adapter.max_norm is not None:
            yield "adapter.max_norm would limit what schedule_free trains and not its average: remove it, or use 'adamw'"


def _loss(config: Config) -> Iterator[str]:
    loss = config.loss
    if loss.kind == "l2":
        yield from _idle(loss, "loss", ("huber_delta", "huber_schedule"), "loss.kind = 'l2'")
    if loss.min_snr_gamma is not None and loss.debiased:
        yield "loss.min_snr_gamma and loss.debiased both weigh the timesteps: choose one of them"
    if loss.timestep_min > loss.timestep_max:
        yield f"loss.timestep_min ({loss.timestep_min}) is above loss.timestep_max ({loss.timestep_max}): nothing can be drawn"
    if loss.timesteps != "logit_normal":
        yield from _idle(loss, "loss", ("timestep_mean", "timestep_std"), f"loss.timesteps = {loss.timesteps!r}")
    if not loss.pyramid_iterations:
        yield from _idle(loss, "loss", ("pyramid_discount",), "loss.pyramid_iterations = 0")
    sources = [source.over(config.data) for source in config.data.sources] or [config.data]
    if all(source.mask == "none" for source in sources):
        yield from _idle(loss, "loss", ("unmasked_weight", "mask_normalize"), "data.mask = 'none'")
    if not any(source.regularization for source in config.data.sources):
        yield from _idle(loss, "loss", ("prior_weight",), "none of data.sources has regularization = true")
    if loss.prior_preservation and not any(source.trigger for source in sources):
        yield "loss.prior_preservation keeps the captions without data.trigger as the base has them: give a trigger"


def _validation(config: Config) -> Iterator[str]:
    validation = config.validation
    given = [name for name in ("folder", "count", "share") if getattr(validation, name)]
    if len(given) > 1:
        yield f"validation.{given[0]} and validation.{given[1]} both say what is held out: choose one of them"
    if not given:
        yield from _idle(validation, "validation", ("every", "timesteps"), "no pictures are held out (validation.count)")


def _preview(config: Config) -> Iterator[str]:
    preview = config.preview
    if preview.guidance == 1:
        yield from _idle(preview, "preview", ("negative",), "preview.guidance = 1, which is none")
    if not config.data.trigger and any(PLACE in prompt for prompt in preview.prompts):
        yield f"preview.prompts have {PLACE}, and data.trigger is empty: give the word, or take {PLACE} out"


def _idle(section: Section, name: str, keys: tuple[str, ...], reason: str) -> Iterator[str]:
    """Complaints about settings that were changed and would have no effect."""
    for key in keys:
        if getattr(section, key) != type(section).model_fields[key].default:
            yield f"{name}.{key} has no effect while {reason}"


def _device(config: Config) -> Iterator[str]:
    if config.device.double_quantize and config.device.quantize != "nf4":
        yield "device.double_quantize has no effect unless device.quantize = 'nf4'"
    if config.device.deterministic and config.device.attention == "xformers":
        yield "device.deterministic does not go together with device.attention = 'xformers', whose sums vary: use 'sdpa'"


def _saving(config: Config) -> Iterator[str]:
    if config.train.steps_min > config.train.steps_max:
        yield f"train.steps_min ({config.train.steps_min}) is more than train.steps_max ({config.train.steps_max})"
    if config.checkpoint.keep_exports and not config.checkpoint.export:
        yield "checkpoint.keep_exports has no effect unless checkpoint.export = true"


def _export(config: Config) -> Iterator[str]:
    adapter, form = config.adapter, config.export.format
    if config.export.readers and form != "auto":
        yield "export.readers has no effect unless export.format = 'auto'"
    if config.export.svd_rank and form not in ("auto", "svd"):
        yield "export.svd_rank has no effect unless export.format is 'svd' or 'auto'"
    if form == "diffusers" and adapter.weight_decompose and adapter.decompose_axis == "input":
        yield "export.format = 'diffusers' can hold DoRA only with adapter.decompose_axis = 'output'"
    if form == "lora" and adapter.weight_decompose:
        yield "export.format = 'lora' cannot hold DoRA (it is not low-rank): use 'webui', or 'diffusers' with the output axis"


def _track(config: Config) -> Iterator[str]:
    if config.track.online and "wandb" not in config.track.trackers:
        yield "track.online has no effect without wandb in track.trackers"


CHECKS: tuple[Callable[[Config], Iterator[str]], ...] = (
    _data,
    _batches,
    _resolutions,
    _showing,
    _model,
    _train,
    _device,
    _embedding,
    _optimizer,
    _optimizer_name,
    _low_rank_rates,
    _relora,
    _saving,
    _loss,
    _validation,
    _preview,
    _export,
    _track,
)
