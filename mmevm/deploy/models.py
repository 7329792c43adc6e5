"""Models as they are exported: from images to the results that users want."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import stack_batch
from torch import Tensor, nn

from mmevm.errors import UsageError


class Difference(NamedTuple):
    """A difference between the results of a file and those of PyTorch.

    Attributes:
        name (str): What differs, with its unit.
        value (float): By how much.
        allowed (float): The largest difference that agrees.
    """

    name: str
    value: float
    allowed: float


class ExportedModel(nn.Module):
    """A model whose outputs are results; a subclass computes them in :meth:`results`.

    Args:
        model (nn.Module): A model in evaluation mode.
        outputs (Sequence[str]): Names of its results.
        task (str): What a predictor makes of them.

    Attributes:
        checked (list[str]): Names of what :meth:`results` returns besides, for comparisons before thresholds.
    """

    model: Any

    def __init__(self, model: Any, outputs: Sequence[str], task: str) -> None:
        super().__init__()
        self.model, self.outputs, self.task = model, list(outputs), task
        self.checked: list[str] = []
        self.options: dict[str, Any] = {}
        self.preprocessing: nn.Module = nn.Identity()
        preprocessor = getattr(model, 'data_preprocessor', None)
        self.divisor: int = getattr(preprocessor, 'pad_size_divisor', 1)
        self.least = 0, 0
        self.pad_value: float = getattr(preprocessor, 'pad_value', 0)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images (Tensor[B, C, H, W]). Returns: The results, and what is compared besides."""
        return self.results(self.preprocessing(images))

    def pad(self, images: Tensor) -> Tensor:
        """Pad normalised images at the right and the bottom, as the data preprocessor does it."""
        if self.divisor == 1 and self.least == (0, 0):
            return images
        sides = [
            torch.sym_max(side, least) if least else side
            for side, least in zip(images.shape[2:], self.least, strict=True)
        ]
        sides = [(side + self.divisor - 1) // self.divisor * self.divisor for side in sides]
        down, right = (new - old for new, old in zip(sides, images.shape[2:], strict=True))
        return F.pad(images, (0, right, 0, down), value=self.pad_value)

    def results(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images (Tensor[B, C, H, W]), normalised. Returns: As :meth:`forward`."""
        raise NotImplementedError

    def expected(self, images: Tensor) -> tuple[Tensor, ...]:
        """The same by the library's own prediction, which need not be exportable."""
        return self.results(self.preprocessing(images))

    def compare(self, got: Sequence[Tensor], images: Tensor) -> list[Difference]:
        """Compare a file's results with :meth:`expected`: maps by their scale, the mean magnitude."""
        names = [*self.outputs, *self.checked]
        return [relative(name, *pair) for name, *pair in zip(names, got, self.expected(images), strict=True)]


class Results(nn.Module):
    """A model's results without what is compared besides.

    Args:
        exported (ExportedModel): The model.
    """

    def __init__(self, exported: ExportedModel) -> None:
        super().__init__()
        self.exported = exported

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images (Tensor[B, C, H, W]). Returns: The results."""
        return self.exported(images)[: len(self.exported.outputs)]


def relative(name: str, got: Tensor, expected: Tensor) -> Difference:
    """Return the largest difference of two maps as a share of their scale."""
    difference = (got - expected).abs().max() / expected.abs().mean().clamp(min=1e-12)
    return Difference(f'{name} (of its scale)', difference.item(), 1e-4)


class Normalization(nn.Module):
    """Colour order, mean and standard deviation of a data preprocessor, for uint8 RGB images.

    Args:
        mean (Sequence[float]): Of each channel, in the model's order.
        std (Sequence[float]): Likewise.
        reverse (bool): The model's channels are in the order BGR.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], reverse: bool) -> None:
        super().__init__()
        self.reverse = reverse
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Args: images (Tensor[B, 3, H, W]), uint8. Returns: Tensor[B, 3, H, W], float32."""
        images = images.float()
        return ((images.flip(1) if self.reverse else images) - self.mean) / self.std


class ExportedBackbone(ExportedModel):
    """A backbone, with one output for each of its maps."""

    def __init__(self, model: Any) -> None:
        indices = getattr(model, 'out_indices', None)
        if indices is None:
            with torch.no_grad():
                indices = range(len(as_tuple(model(torch.zeros(1, 3, 64, 64)))))
        super().__init__(model, [f'map{i}' for i in indices], 'backbone')

    def results(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images (Tensor[B, C, H, W]). Returns: The maps."""
        return as_tuple(self.model(images))


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    """Return one output or several as a tuple."""
    return tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)


class ExportedClassifier(ExportedModel):
    """A classifier of mmpretrain.

    Args:
        model (nn.Module): An ``ImageClassifier``.
        logits (bool): Returns the head's raw outputs instead of scores.

    Raises:
        UsageError: The head does not end in one list of scores.
    """

    def __init__(self, model: Any, logits: bool) -> None:
        from mmpretrain.models.heads import ClsHead, MultiLabelClsHead

        super().__init__(model, ['logits' if logits else 'scores'], 'classification')
        head = getattr(model, 'head', None)
        if not isinstance(head, ClsHead | MultiLabelClsHead):
            raise UsageError(f'Only classifiers with a ClsHead or a MultiLabelClsHead are exported, got {_name(head)}.')
        self.logits = logits
        self.options = {'multilabel': isinstance(head, MultiLabelClsHead)}

    def results(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images (Tensor[B, 3, H, W]). Returns: Tensor[B, classes]."""
        outputs = self.model(self.pad(images), mode='tensor')
        if self.logits:
            return (outputs,)
        return (outputs.sigmoid() if self.options['multilabel'] else outputs.softmax(dim=1),)

    def expected(self, images: Tensor) -> tuple[Tensor, ...]:
        """The scores of mmpretrain's prediction."""
        if self.logits:
            return super().expected(images)
        images = stack_batch(list(self.preprocessing(images)), self.divisor, self.pad_value)
        samples = self.model.predict(images)
        return (torch.stack([sample.pred_score for sample in samples]),)


class ExportedSegmentor(ExportedModel):
    """A segmentor of mmseg, run on the complete image.

    Args:
        model (nn.Module): An ``EncoderDecoder``.
        logits (bool): Returns the classes' raw maps instead of the map of classes.

    Raises:
        UsageError: The segmentor is of another kind.
    """

    def __init__(self, model: Any, logits: bool) -> None:
        from mmseg.models.segmentors import EncoderDecoder

        if not isinstance(model, EncoderDecoder) or type(model).predict is not EncoderDecoder.predict:
            raise UsageError(f'Only segmentors that predict as EncoderDecoder does are exported, got {_name(model)}.')
        super().__init__(model, ['logits' if logits else 'classes'], 'segmentation')
        self.logits = logits
        self.checked = [] if logits else ['logits']
        # OpenMMLab's own package has another name for it than MMEngine.
        self.pad_value = getattr(model.data_preprocessor, 'pad_val', self.pad_value)
        padding = getattr(model.data_preprocessor, 'test_cfg', None) or {}
        self.divisor = padding.get('size_divisor') or 1
        size = padding.get('size') or (0, 0)
        self.least = size[-2], size[-1]
        if model.test_cfg.get('mode') == 'slide':
            crop, stride = (list(model.test_cfg[key]) for key in ('crop_size', 'stride'))
            self.options['window'] = {'size': crop, 'stride': stride}
        if model.out_channels == 1:
            head: Any = model.decode_head[-1] if isinstance(model.decode_head, nn.ModuleList) else model.decode_head
            self.options['threshold'] = math.log(head.threshold / (1 - head.threshold))  # of logits

    def results(self, images: Tensor) -> tuple[Tensor, ...]:
        """Args: images (Tensor[B, 3, H, W]). Returns: int32 Tensor[B, H, W], or logits Tensor[B, classes, H, W]."""
        padded, (height, width) = self.pad(images), images.shape[2:]
        logits = self.model.encode_decode(padded, [{'img_shape': padded.shape[2:]}])[..., :height, :width]
        return (logits,) if self.logits else (self._classes(logits), logits)

    def expected(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits of the images as mmseg pads them."""
        from mmseg.utils import stack_batch

        images = self.preprocessing(images)
        padding = getattr(self.model.data_preprocessor, 'test_cfg', None)
        padded, _ = stack_batch(list(images), **padding, pad_val=self.pad_value) if padding else (images, None)
        logits = self.model.encode_decode(padded, [{'img_shape': padded.shape[2:]}])
        return (logits[..., : images.shape[2], : images.shape[3]],)

    def _classes(self, logits: Tensor) -> Tensor:
        if logits.shape[1] > 1:
            return logits.argmax(dim=1).to(torch.int32)
        return (logits[:, 0] > self.options['threshold']).to(torch.int32)

    def compare(self, got: Sequence[Tensor], images: Tensor) -> list[Difference]:
        """Compare logits, and classes with those of the file's own logits."""
        difference = relative('logits', got[-1], self.expected(images)[-1])
        if self.logits:
            return [difference]
        differing = (got[0] != self._classes(got[-1])).float().mean()
        return [difference, Difference('classes (share of pixels)', differing.item(), 0.0)]


def _name(module: Any) -> str:
    return 'none' if module is None else type(module).__name__
