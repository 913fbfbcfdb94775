"""Build what a training needs, in order: device, base model, pictures, adapters, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from morelora import AdapterSet, Target, inject, resolve
from morelora.errors import FormatError
from morelora.procedure import Procedures
from morelora.start import start_from
from trainer import rng
from trainer.config import Config
from trainer.data import Cache, Dataset, Dealing, Encoded, HeldOut, Loader, PixelEncoder, TextEncoder, Views, phrasing
from trainer.embedding import Word, add_word
from trainer.errors import InputError
from trainer.memory import Resting, compile_blocks, prepare, resting_parts
from trainer.models import Bundle
from trainer.optim import Ema, build_optimizer, build_schedule, evaluated
from trainer.procedures import build_procedures
from trainer.restarts import make_restartable
from trainer.saving import Saving
from trainer.team import PATIENCE, Team, check_launch
from trainer.zero import INSTALL, Zero, check_zero, is_zero

START = 0
"""Key of the generator that the adapters start from."""


@dataclass
class Session:
    """Everything that one training holds together."""

    config: Config
    bundle: Bundle
    adapters: AdapterSet
    targets: list[Target]
    dataset: Dataset
    loader: Loader
    accelerator: Accelerator
    optimizer: AcceleratedOptimizer | Zero
    schedule: LambdaLR
    ema: Ema | None
    held: HeldOut | None = None
    """Pictures of the validation loss."""
    resting: Resting = field(default_factory=Resting)
    word: Word | None = None
    procedures: Procedures = field(default_factory=Procedures)
    """What the algorithms do between the steps."""
    step: int = 0

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is trained now, by name."""
        return dict(self.adapters.named_parameters()) | (dict(self.word.named_parameters()) if self.word else {})

    @property
    def saving(self) -> Saving:
        """After which steps a checkpoint is due."""
        return Saving.of(self.config, self.accelerator.num_processes, self.loader.batches_per_epoch)

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained now."""
        return list(self.named_parameters().values())

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Inside, the adapters act at ``strength``; at 0 the word has the vectors that it started from."""
        words = self.word.vectors if self.word else None
        if words is not None:
            words.learnt = strength > 0
        try:
            with self.adapters.at(strength):
                yield
        finally:
            if words is not None:
                words.learnt = True

    def begin(self) -> None:
        """Before the first step: take the values of ``train.init_from``, averages too."""
        begin_from_file(self.config, self.adapters)
        if self.zero is not None:
            self.zero.take()
        if self.ema is not None:
            self.ema = Ema(self.parameters(), self.ema.decay)

    @property
    def zero(self) -> Zero | None:
        """The optimiser, where its state is shared out over the processes."""
        return self.optimizer if isinstance(self.optimizer, Zero) else None

    @property
    def rewrites(self) -> bool:
        """Whether trained values are set by something else than the optimiser."""
        return self.config.adapter.max_norm is not None or any(procedure.rewrites for _, procedure in self.procedures)

    def autocast(self) -> AbstractContextManager[None]:
        """Inside, operations have the precision of ``train.precision``."""
        return autocast(self.config, self.accelerator)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the trained tensors hold what is exported: their averages, where the run keeps any."""
        return evaluated(self.optimizer.optimizer) if self.ema is None else self.ema.inside()


def build_accelerator(config: Config) -> Accelerator:
    """Device, mixed precision and processes. Raises ``InputError`` where the device or the launcher's settings do not fit."""
    is_deepspeed = parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")  # which would cast the adapters themselves
    precision = "no" if is_deepspeed else {"fp32": "no"}.get(config.train.precision, config.train.precision)
    group = InitProcessGroupKwargs(timeout=PATIENCE)
    if is_deepspeed and not torch.cuda.is_available():
        group.backend = "gloo"  # without a word accelerate takes such processes for one each
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[group])
    except ImportError as error:
        raise InputError(f"this run was launched with DeepSpeed, which cannot be imported: {error}", INSTALL) from error
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"train.precision = {config.train.precision!r} does not work on this device: {error}",
            "use train.precision = 'fp32', or 'bf16' where the device has it",
        ) from error
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError("train.precision = 'fp16' needs a GPU", "use train.precision = 'bf16' or 'fp32' on a CPU")
    check_launch(accelerator)
    if is_zero(accelerator):
        check_zero(config, accelerator.state.deepspeed_plugin)
    return accelerator


def autocast(config: Config, accelerator: Accelerator) -> AbstractContextManager[None]:
    """Mixed precision as ``train.precision`` has it; accelerate's own leaves it to DeepSpeed, which knows no frozen base."""
    if not is_zero(accelerator):
        return accelerator.autocast()
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.train.precision == "bf16")


def add_adapters(config: Config, bundle: Bundle) -> tuple[AdapterSet, list[Target]]:
    """Adapters in the parts that are trained, started from the run's seed."""
    parts = bundle.components(config.train.unet, config.train.text_encoder)
    if not parts:  # a word alone
        return AdapterSet({}, {}), []
    targets = [target for target in resolve(parts, config.adapter) if bundle.is_read(target.name)]
    adapters = inject(parts, targets, rng.generator_for(config.train.seed, START))
    make_restartable(adapters, config)
    for part in parts.values():
        part.train()
    return adapters, targets


def begin_from_file(config: Config, adapters: AdapterSet) -> None:
    """Give the adapters the values of ``train.init_from``, if there is one.

    Raises:
        InputError: it cannot be read, or holds another adapter than this run's.
    """
    if config.train.init_from is None:
        return
    try:
        start_from(adapters, Path(config.train.init_from).expanduser())
    except FormatError as error:
        fix = "give a file with the run's layers, algorithm and rank, or set these as the file has them"
        raise InputError(f"train.init_from: {error}", fix) from error


def encode_ahead(
    config: Config, bundle: Bundle, views: Views, texts: Sequence[str] | None, cache: Cache, accelerator: Accelerator
) -> Encoded:
    """Encode what the cache lacks. ``texts`` are encoded ahead only where they are known and the text encoder rests."""
    latents = cache.latents(views, PixelEncoder(bundle.encode_pixels, bundle.latents_fingerprint))
    masks = cache.masks(views, latents)
    if config.reads_captions_live or texts is None:
        return Encoded(latents, masks, None)
    stored = config.device.quantize + "-double" * config.device.double_quantize
    name = f"{bundle.fingerprint(*bundle.text_encoders)}-{config.model.dtype}-{stored}-{config.train.precision}"
    encoder = TextEncoder(bundle.encode_text_ahead, name, bundle.max_length, config.model.clip_skip)
    with autocast(config, accelerator):  # as the loop would
        return Encoded(latents, masks, cache.texts(texts, encoder))


def build_loader(config: Config, bundle: Bundle, dataset: Dataset, cache: Cache, accelerator: Accelerator) -> Loader:
    """Deals out batches of encoded pictures."""
    team, views = Team.of(accelerator), Views(dataset)
    encoded = encode_ahead(config, bundle, views, phrasing.texts(dataset, config.keeps_prior), cache, accelerator)
    return Loader(views, encoded, Dealing.of(config, team.world, team.rank))


def build_held_out(config: Config, bundle: Bundle, dataset: Dataset, cache: Cache, accelerator: Accelerator) -> HeldOut | None:
    """The encoded pictures of the validation loss, where there are any."""
    views = Views(dataset.validation, plain=True)
    texts = [item.caption for item in dataset.held_out]
    return HeldOut(views, encode_ahead(config, bundle, views, texts, cache, accelerator)) if texts else None


def build_session(
    config: Config, bundle: Bundle, dataset: Dataset, accelerator: Accelerator, cache: Cache, notice: Callable[[str], None]
) -> Session:
    """Everything on its device and ready for the first step; ``notice`` is told what the user should know."""
    rng.seed_everything(config.train.seed)
    prepare(bundle, config.device, accelerator.device, notice)
    loader = build_loader(config, bundle, dataset, cache, accelerator)
    held = build_held_out(config, bundle, dataset, cache, accelerator)
    adapters, targets = add_adapters(config, bundle)
    word = add_word(config, bundle)
    if config.train.gradient_checkpointing:
        bundle.enable_gradient_checkpointing()
    if config.device.compile:
        compile_blocks(bundle.unet, accelerator.device)
    resting = resting_parts(bundle, config, accelerator.device, texts_rest=not loader.encodes_in_the_loop)
    resting.rest()
    groups = [word.group()] if word else []
    plain = build_optimizer(adapters, targets, config.optimizer, groups)
    is_shared = is_zero(accelerator)
    modules = (adapter for _, adapter in adapters)
    optimizer = Zero(accelerator, modules, plain, config) if is_shared else accelerator.prepare_optimizer(plain)
    restarts = config.relora if config.relora.every else None
    schedule = build_schedule(optimizer.optimizer, config.optimizer, config.train.steps, restarts)
    trained = [*adapters.parameters(), *(word.vectors.parameters() if word else [])]
    ema = Ema(trained, config.train.ema) if config.train.ema else None
    session = Session(
        config, bundle, adapters, targets, dataset, loader, accelerator, optimizer, schedule, ema, held, resting, word
    )
    session.procedures = build_procedures(session)
    return session
