"""What a method is. See DESIGN: a method is an ``nn.Module`` that knows no loop, optimizer, device or file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from torch import Tensor, nn
from typing_extensions import TypeVar

from duomod.errors import InputError
from duomod.losses.dice import dice_ce
from duomod.losses.ramps import sigmoid_rampup
from duomod.losses.running_weights import ClassWeights, follow_predictions
from duomod.methods.settings import MethodConfig as MethodConfig
from duomod.methods.settings import Preset as Preset
from duomod.networks.base import Encoder
from duomod.networks.builder import NetworkBuilder
from duomod.sampling.batch import Batch as Batch
from duomod.sampling.settings import ViewConfig


@dataclass(frozen=True)
class Progress:
    """Where training stands: ``step`` of ``total_steps``, counted from 0."""

    step: int
    total_steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        """Index of the current epoch, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def max_epochs(self) -> float:
        """Number of epochs of the whole training."""
        return self.total_steps / self.steps_per_epoch


#: What a training records under these names.
_RECORDED = frozenset({"step", "loss", "learning_rate"})


@dataclass
class StepOutput:
    """What a step returns: only ``loss`` (scalar) is back-propagated; ``parts`` are detached tensors to log:
    scalars, or (C,) one value per class.

    Raises:
        InputError: a part has the name of something else that is recorded.
    """

    loss: Tensor
    parts: dict[str, Tensor]

    def __post_init__(self) -> None:
        taken = [name for name in self.parts if name in _RECORDED or name.startswith("val_dice")]
        if taken:
            raise InputError(
                f"a method's part may not be called '{taken[0]}': metrics.jsonl has something else under that name"
                f" (also: {', '.join(sorted(_RECORDED))}, val_dice...); rename it in the method's StepOutput"
            )


@dataclass(frozen=True)
class MethodContext:
    """What a method may know of the run when it is built.

    Attributes:
        num_classes: Classes, background included.
        class_counts: (C,) float64 voxel counts of the labelled training data, background first; of all volumes unless
            the method's ``counts_from`` says otherwise.
        build_network: Builds the network the user chose, with as many channels and classes as the data have.
        in_channels: Channels of the images.
    """

    num_classes: int
    class_counts: Tensor
    build_network: NetworkBuilder
    in_channels: int = 1

    def class_distribution(self) -> Tensor:
        """(C,) float32: the labelled volumes' share of each class."""
        counts = self.class_counts.double()
        return (counts / counts.sum().clamp(min=1)).float()


@dataclass(frozen=True)
class MethodInfo:
    """How a method presents itself."""

    title: str
    paper: str
    year: int
    summary: str


ConfigT = TypeVar("ConfigT", bound=MethodConfig, default=MethodConfig, covariant=True)


class Method(nn.Module, ABC, Generic[ConfigT]):
    """Base of all methods. State lives in sub-modules and buffers, so saving and resuming need no code.

    A method with settings of its own names their class twice: ``class Mine(Method[MineConfig])`` for whoever reads
    ``self.config``, and ``Config = MineConfig`` for whoever makes one.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    info: ClassVar[MethodInfo]
    uses_unlabelled: ClassVar[bool] = True
    #: Trained with the labels of all training cases, also of those that the split uses unlabelled.
    uses_all_labels: ClassVar[bool] = False
    #: Views of the patches that the streams make for it (``batch.views``): weak, strong, strong2, or what its settings'
    #: ``view`` describes. A method has no augmentation of its own.
    views: ClassVar[tuple[str, ...]] = ()
    #: Whether ``class_weights`` may be switched on: not where the method weights its classes itself.
    accepts_class_weights: ClassVar[bool] = True

    def __init__(self, config: ConfigT, context: MethodContext) -> None:
        super().__init__()
        self.config = config
        self.num_classes = context.num_classes
        self.imbalance: ClassWeights | None = None
        if config.class_weights != "none":
            if not self.accepts_class_weights:
                raise self._weights_itself()
            self.imbalance = ClassWeights(config.class_weights, context.class_distribution())
            self.register_forward_pre_hook(self._follow_predictions, with_kwargs=True)

    @abstractmethod
    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """One step's loss."""

    @classmethod
    def view_settings(cls, config: MethodConfig) -> dict[str, ViewConfig]:
        """How each of its views is made with these settings."""
        return {name: config.view(name) for name in cls.views}

    def after_step(self, progress: Progress) -> None:
        """Called after the optimizer's step: EMA and the like."""

    @abstractmethod
    def predictor(self) -> nn.Module:
        """What inference needs: a module that maps images (B, in_channels, D, H, W) to logits (B, C, D, H, W)."""

    @abstractmethod
    def published_modules(self) -> dict[str, nn.Module]:
        """Networks by the key under which published checkpoints hold them (``A``, ``B``, ``model``, ``ema_model``)."""

    def parameter_groups(self, optim: Any) -> list[dict[str, Any]]:
        """Optimizer groups; ``optim`` is the training's optimizer settings. By default one with all that is trained."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def supervised_loss(
        self, logits: Tensor, label: Tensor, ce_weight: Tensor | None = None, dice_weight: Tensor | None = None
    ) -> Tensor:
        """Dice + cross-entropy with this method's rule for absent classes.

        Without weights given, those of the setting ``class_weights`` apply, if it is on.

        Raises:
            InputError: that setting is on, but the method gives weights of its own.
        """
        if self.imbalance is not None:
            if ce_weight is not None or dice_weight is not None:
                raise self._weights_itself()
            ce_weight, dice_weight = self.switched_on_weights()
        return dice_ce(logits, label, ce_weight=ce_weight, dice_weight=dice_weight, absent=self.config.absent_class)

    def switched_on_weights(self) -> tuple[Tensor | None, Tensor | None]:
        """Cross-entropy and Dice weights (C,) of the setting ``class_weights``; for losses of a method's own."""
        return (None, None) if self.imbalance is None else self.imbalance()

    def _weights_itself(self) -> InputError:
        return InputError(
            f"class weights '{self.config.class_weights}': {self.info.title} has its own rule for rare classes;"
            " leave the option at 'none'"
        )

    @staticmethod
    def _follow_predictions(method: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a training step: let the class weights follow the predictions on its unlabelled patches."""
        assert isinstance(method, Method)
        if method.training and method.imbalance is not None:
            batch, progress = (*args, *kwargs.values())
            follow_predictions(method.imbalance, method.predictor(), batch.image_u, progress.step)

    def consistency_weight(self, progress: Progress) -> float:
        """Weight of the unsupervised term at this step (docs/methods/README.md, Ramps)."""
        return self.config.consistency_weight * sigmoid_rampup(progress.epoch, epochs(self.config.rampup, progress))


def describe_networks(method: Method) -> str:
    """The networks that a method built, in words, such as ``2 x VNet`` or ``UNet with projection + teacher``."""
    trained: dict[str, int] = {}
    followers = 0
    for module in {id(m): m for m in method.published_modules().values()}.values():
        if any(p.requires_grad for p in module.parameters()):
            kind = module.description if isinstance(module, Encoder) else type(module).__name__
            trained[kind] = trained.get(kind, 0) + 1
        else:
            followers += 1
    words = [kind if count == 1 else f"{count} x {kind}" for kind, count in trained.items()]
    return " + ".join([*words, *(["teacher"] if followers else [])])


def epochs(length: float, progress: Progress) -> float:
    """Turn a length given as a share of training (below 1) or in epochs into epochs."""
    return length * progress.max_epochs if length < 1 else length
