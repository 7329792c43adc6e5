"""The table of released checkpoints. One entry a file; what nobody has published (a hash, a size) stays empty."""

import difflib
from dataclasses import dataclass, field
from typing import Any

from mmevm.registry import BACKBONES
from mmevm.zoo.errors import NameUnknownError

_HUB = 'https://huggingface.co'
_VMAMBA = 'https://github.com/MzeroMiko/VMamba/releases/download'


@dataclass(frozen=True)
class Entry:
    """A released checkpoint.

    Attributes:
        name (str): What users call it; ``mmevm://NAME`` in configs.
        architecture (str): The network, a class of :mod:`mmevm.backbones` if mmevm has it.
        arch (str): The variant of it.
        options (dict): Further arguments of the backbone that the weights are for.
        task (str): What the file's weights were trained for: 'classification', 'detection' or 'segmentation'.
        config (str): The config of mmevm that builds the whole model of the file.
        url (str): Where the file lies, for files of the hub too.
        key (str): The top-level key of the weights.
        metric (str): Name of the measure.
        paper (float): The authors' figure of it. None of them has been measured again here.
        source (str): The authors' repository.
        licence (str): As the authors state it.
        repo (str, optional): Repository on the Hugging Face hub, if the file is there.
        size (int, optional): Size in bytes, to the three digits that the hub lists.
        sha256 (str, optional): The file's hash, where its authors published one. Where they did not, the first verified
            download records it in the cache, and later ones are held to that.
    """

    name: str
    architecture: str
    arch: str
    task: str
    config: str
    url: str
    key: str
    metric: str
    paper: float
    source: str
    licence: str
    repo: str | None = None
    size: int | None = None
    sha256: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rsplit('/', 1)[1]

    @property
    def available(self) -> bool:
        """Whether mmevm has the backbone that these weights are for."""
        return self.architecture in BACKBONES

    @property
    def converted_from(self) -> str:
        """What the weights are made from: upstream's own file, converted when it is loaded."""
        return f'{self.source}: {self.url}'


def _evm(arch: str, letter: str, paper: float, size: int) -> Entry:
    repo = f'TerryPei/EfficientVMamba-{arch.capitalize()}'
    return Entry(
        name=f'efficient_vmamba_{arch}',
        architecture='EfficientVMamba',
        arch=arch,
        task='classification',
        config=f'configs/classifier_evm_{letter}.py',
        url=f'{_HUB}/{repo}/resolve/main/efficient_vmamba_{arch}.ckpt',
        key='state_dict',
        metric='ImageNet-1k top-1, %',
        paper=paper,
        source='https://github.com/TerryPei/EfficientVMamba',
        licence='none stated',
        repo=repo,
        size=size,
    )


def _vmamba(name: str, version: str, arch: str, file: str, paper: float, config: str) -> Entry:
    task, metric, key = {
        'cls': ('classification', 'ImageNet-1k top-1, %', 'model'),
        'det': ('detection', 'COCO box AP', 'state_dict'),
        'seg': ('segmentation', 'ADE20K mIoU, %', 'state_dict'),
    }[version[-3:]]
    return Entry(
        name=name,
        architecture='VMamba',
        arch=arch,
        task=task,
        config=f'configs/{config}.py',
        url=f'{_VMAMBA}/%23{version}/{file}.pth',  # the tag is '#v2cls'
        key=key,
        metric=metric,
        paper=paper,
        source='https://github.com/MzeroMiko/VMamba',
        licence='MIT',
    )


def _later_design(arch: str, file: str, paper: float) -> Entry:
    size, _, design = arch.partition('_')
    return _vmamba(f'vmamba_v2_{arch}', 'v2cls', arch, file, paper, f'classifier_vmamba_{size[0]}_{design}')


def _mask_rcnn(arch: str, file: str, paper: float) -> Entry:
    size, file = arch.partition('_')[0], f'mask_rcnn_vssm_fpn_coco_{file}'
    return _vmamba(f'vmamba_v2_{size}_mask_rcnn', 'v2det', arch, file, paper, f'mask_rcnn_vmamba_{size[0]}_1x')


def _upernet(arch: str, file: str, paper: float) -> Entry:
    size, file = arch.partition('_')[0], f'upernet_vssm_4xb4-160k_ade20k-512x512_{file}'
    return _vmamba(f'vmamba_v2_{size}_upernet', 'v2seg', arch, file, paper, f'upernet_vmamba_{size[0]}')


def _vim(arch: str, file: str, paper: float, stride: int | None = None) -> Entry:
    repo = f'hustvl/Vim-{arch}-midclstok'
    suffix = f'_stride{stride}' if stride else ''
    return Entry(
        name=f'vim_{arch}{suffix}',
        architecture='Vim',
        arch=arch,
        task='classification',
        config=f'configs/classifier_vim_{arch[0]}{suffix}.py',
        url=f'{_HUB}/{repo}/resolve/main/{file}.pth',
        key='model',
        metric='ImageNet-1k top-1, %',
        paper=paper,
        source='https://github.com/hustvl/Vim',
        licence='see its page on the hub',
        repo=repo,
        options={'patch_stride': stride} if stride else {},
    )


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        _evm('tiny', 't', 76.5, 26_200_000),
        _evm('small', 's', 78.7, 45_300_000),
        _evm('base', 'b', 81.8, 135_000_000),
        _vmamba('vmamba_v0_tiny', 'v0cls', 'tiny', 'vssmtiny_dp01_ckpt_epoch_292', 82.2, 'classifier_vmamba_t'),
        _vmamba('vmamba_v0_small', 'v0cls', 'small', 'vssmsmall_dp03_ckpt_epoch_238', 83.5, 'classifier_vmamba_s'),
        _vmamba('vmamba_v0_base', 'v0cls', 'base', 'vssmbase_dp06_ckpt_epoch_241', 83.7, 'classifier_vmamba_b'),
        _later_design('tiny_s1l8', 'vssm1_tiny_0230s_ckpt_epoch_264', 82.6),
        _later_design('tiny_s2l5', 'vssm_tiny_0230_ckpt_epoch_262', 82.5),
        _later_design('small_s2l15', 'vssm_small_0229_ckpt_epoch_222', 83.6),
        _later_design('base_s2l15', 'vssm_base_0229_ckpt_epoch_237', 83.9),
        _later_design('small_s1l20', 'vssm1_small_0229s_ckpt_epoch_240', 83.3),
        _later_design('base_s1l20', 'vssm1_base_0229s_ckpt_epoch_225', 83.8),
        _mask_rcnn('tiny_s1l8', 'tiny_s_epoch_12', 47.3),
        _mask_rcnn('small_s2l15', 'small_epoch_11', 48.7),
        _mask_rcnn('base_s2l15', 'base_epoch_11', 49.2),
        _upernet('tiny_s1l8', 'tiny_s_iter_160000', 47.9),
        _upernet('small_s2l15', 'small_iter_144000', 50.6),
        _upernet('base_s2l15', 'base_iter_160000', 51.0),
        _vim('tiny', 'vim_t_midclstok_76p1acc', 76.1),
        _vim('tiny', 'vim_t_midclstok_ft_78p3acc', 78.3, stride=8),
        _vim('small', 'vim_s_midclstok_80p5acc', 80.5),
        _vim('small', 'vim_s_midclstok_ft_81p6acc', 81.6, stride=8),
    )
}
"""Every checkpoint of the zoo by name."""


def find_entry(name: str) -> Entry:
    """The entry of a name, with or without ``mmevm://``.

    Raises:
        NameUnknownError: If there is none; names the most similar ones. It is a ``ValueError``.
    """
    name = name.removeprefix('mmevm://')
    if name in ENTRIES:
        return ENTRIES[name]
    close = difflib.get_close_matches(name, ENTRIES, cutoff=0.3) or list(ENTRIES)
    raise NameUnknownError(
        f'the zoo has no {name!r}; did you mean {", ".join(close)}? `python tools/zoo.py list` shows all'
    )
