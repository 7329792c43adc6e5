"""Write the tables of numbers in the README and the manual from the data that they restate.

    python docs/tables.py            # after a benchmark, or a change of the zoo or of a metafile

A Markdown file holds a table between ``<!-- table: NAME -->`` and ``<!-- end -->``; what stands between the two is
replaced. ``tests/test_docs/test_tables.py`` fails while a table is out of date.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mmevm.backbones import EfficientVMamba, Vim, VMamba
from mmevm.zoo import ENTRIES, Entry

ROOT = Path(__file__).resolve().parents[1]
# Without a place where a narrow column could break the line.
_SLASH = '\u00a0/\u00a0'
_DASH = '\u2060–\u2060'

BLOCK = re.compile(r'(<!-- table: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)

NAMES = {
    'evm_tiny': 'EfficientVMamba-T',
    'evm_small': 'EfficientVMamba-S',
    'evm_base': 'EfficientVMamba-B',
    'vmamba_tiny': 'VMamba-T, first design',
    'vmamba_tiny_s1l8': 'VMamba-T, second design (s1l8)',
    'vim_tiny': 'Vim-Ti',
    'vim_small': 'Vim-S',
}
"""How the benchmarks' networks are called in prose."""

DETECTORS = {
    'retinanet_evm_t': 'RetinaNet, EfficientVMamba-T',
    'rtmdet_evm_t': 'RTMDet, EfficientVMamba-T',
    'retinanet_pvt_v2_b0': 'RetinaNet, PVTv2-B0',
    'retinanet_r18': 'RetinaNet, ResNet-18',
}
"""How the detectors of ``benchmarks/equal_time.py`` are called in prose."""

FAMILIES = {
    'EfficientVMamba (T / S / B)': 'classifier_evm_t classifier_evm_s classifier_evm_b',
    'VMamba, first design (T / S / B)': 'classifier_vmamba_t classifier_vmamba_s classifier_vmamba_b',
    'VMamba, second design (T / S / B)': 'classifier_vmamba_t_s1l8 classifier_vmamba_s_s2l15 classifier_vmamba_b_s2l15',
    'Vim (Ti / S)': 'classifier_vim_t classifier_vim_s',
    'Vim, stride 8 (Ti / S)': 'classifier_vim_t_stride8 classifier_vim_s_stride8',
}
"""Classifiers that share a row of the README's table."""

CONFIGS = [
    ('classifier_evm_{t,s,b}', 'ImageNet-1k, 300 epochs, batch 2048 (`b`: 1024); Table 2'),
    ('retinanet_evm_{t,s,b}', 'COCO, 12 epochs; Table 3'),
    ('mask_rcnn_evm_{t,s,b}_1x', 'COCO, 12 epochs; Table 7'),
    ('mask_rcnn_evm_{t,s,b}_3x', 'COCO, 36 epochs at several scales; Table 7'),
    ('upernet_evm_{t,s,b}', 'ADE20K, 160k iterations at 512²; Table 4'),
    ('upernet_evm_{t,s,b}_640', 'the same at 640²; Table 4'),
    ('rtmdet_evm_{t,s}', "COCO, 300 epochs at 640²; RTMDet's recipe"),
    ('rtmdet_ins_evm_t', 'the same with masks'),
    ('ssdlite_evm_t', 'COCO, 120 × 5 epochs at 320²'),
    ('segformer_evm_{t,s}', "ADE20K, 160k iterations at 512²; SegFormer's recipe"),
    ('fpn_evm_t', 'ADE20K, 80k iterations at 512²'),
    ('classifier_vmamba_{t,s,b}', 'ImageNet-1k, 300 epochs, batch 1024; first design'),
    ('classifier_vmamba_{t_s1l8,s_s2l15,b_s2l15}', 'the same; second design'),
    ('classifier_vmamba_{t_s2l5,s_s1l20,b_s1l20}', 'the same; second design'),
    ('mask_rcnn_vmamba_{t,s,b}_1x', 'COCO, 12 epochs; second design'),
    ('mask_rcnn_vmamba_{t,s}_3x', 'COCO, 36 epochs at several scales; second design'),
    ('upernet_vmamba_{t,s,b}', 'ADE20K, 160k iterations at 512²; second design'),
    ('classifier_vim_{t,s}', 'ImageNet-1k, 300 epochs, batch 1024 (`s`: 512)'),
    ('classifier_vim_{t,s}_stride8', 'ImageNet-1k, 30 epochs on top of `classifier_vim_{t,s}`, batch 1024'),
    ('upernet_vim_{t,s}', 'ADE20K, 60k iterations of batch 32 at 512²'),
]
"""Groups of configs with their schedules, and the table of EfficientVMamba's paper or the design that they follow."""


def table(header: str, rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the header's cells are separated by bars."""
    head = [cell.strip() for cell in header.split('|')]
    lines = [head, ['---'] * len(head), *([str(cell) for cell in row] for row in rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


@cache
def metafiles() -> dict[str, dict[str, Any]]:
    """The models of the metafiles by name."""
    contents = (yaml.safe_load(path.read_text()) for path in sorted((ROOT / 'configs').glob('metafile_*.yml')))
    return {model['Name']: model for content in contents for model in content['Models']}


def expand(pattern: str) -> list[str]:
    """The names that a pattern with at most one pair of braces stands for."""
    if '{' not in pattern:
        return [pattern]
    before, choices, after = re.fullmatch(r'(\w*)\{([\w,]+)\}(\w*)', pattern).groups()
    return [before + choice + after for choice in choices.split(',')]


def joined(template: str, values: Iterable[object]) -> str:
    """Formatted values of the sizes of a model, such as ``6.5 / 11.3 / 33.7``."""
    return _SLASH.join(template.format(value) for value in values)


def parameters(names: Iterable[str], digits: int = 1) -> str:
    """Parameters of models of the metafiles, in millions."""
    return joined(f'{{:.{digits}f}}', (metafiles()[name]['Metadata']['Parameters'] / 1e6 for name in names))


def flops(names: Iterable[str]) -> str:
    """FLOPs of models of the metafiles, in thousands of millions, as precise as their size asks for."""
    counts = [metafiles()[name]['Metadata']['FLOPs'] / 1e9 for name in names]
    return joined('{:.2f}' if counts[0] < 20 else '{:.0f}', counts)


def released(config: str) -> Entry:
    """The zoo's entry whose file a config builds the whole model for."""
    return next(entry for entry in ENTRIES.values() if Path(entry.config).stem == config)


def models() -> str:
    """The README's table: families of classifiers."""
    rows = []
    for family, names in FAMILIES.items():
        names = names.split()
        figures = joined('{}', (released(name).paper for name in names))
        rows.append((family, parameters(names), flops(names), figures, ', '.join(f'`{name}`' for name in names)))
    return table("model | params, M | FLOPs, G | top-1, % (authors') | configs", rows)


def configs() -> str:
    """The table of configs, with what each costs."""
    rows = []
    for pattern, schedule in CONFIGS:
        names = expand(pattern)
        shown = [pattern] if len(pattern) <= 30 else names
        rows.append((', '.join(f'`{name}`' for name in shown), schedule, parameters(names), flops(names)))
    return table('configs | schedule | params, M | FLOPs, G', rows)


def architectures() -> str:
    """Variants of the backbones: widths, depths, parameters of the classifier."""
    rows = []
    for entry in (e for e in ENTRIES.values() if e.task == 'classification' and not e.options):
        kind = {cls.__name__: cls for cls in (EfficientVMamba, VMamba, Vim)}[entry.architecture]
        arch = kind.arch_zoo[entry.arch]
        widths, depths = (', '.join(map(str, arch[key])) for key in ('dims', 'depths'))
        size = metafiles()[Path(entry.config).stem]['Metadata']['Parameters']
        rows.append((f'`{entry.architecture}`', f'`{entry.arch}`', widths, depths, f'{size / 1e6:.3f}'))
    return table('backbone | `arch` | channels of its maps | blocks per stage | params with a 1000-class head, M', rows)


def zoo() -> str:
    """Every released checkpoint."""
    rows = [
        (
            f'`{entry.name}`',
            f'[file]({entry.url})',
            entry.metric.partition(',')[0],
            entry.paper or '–',
            f'[`{Path(entry.config).stem}`](../{entry.config})',
            entry.licence,
        )
        for entry in ENTRIES.values()
    ]
    return table("name | file | measure | authors' figure | config of the whole model | licence", rows)


def results(name: str) -> dict[str, Any]:
    """The values of a benchmark's last run."""
    return json.loads((ROOT / 'benchmarks/results' / f'{name}.json').read_text(encoding='utf-8'))


def origin(name: str) -> str:
    """Date, machine, versions and command of a benchmark's last run, as a sentence."""
    said = results(name)['environment']
    cpu, _, cores = said['CPU'].replace('(R)', '').replace(' Processor', '').partition(', ')
    kernels = said['mmevm kernels'].upper().replace('AVX512', 'AVX-512').replace('512BF16', '512, BF16')
    versions = ', '.join(f'{key} {said[key].partition("+")[0]}' for key in ('torch', 'timm', 'Python'))
    return (
        f'Measured on {said["date"][:10]} on {cores.replace("logical ", "")} of an {cpu} ({kernels}), '
        f'{said["threads"]} thread{"s" if said["threads"] != "1" else ""}, {versions}:\n`.venv/bin/{said["command"]}`.'
    )


def times(row: dict[str, Any]) -> str:
    """The quartiles of a row's times."""
    return f'{row["p25"]:.1f}{_DASH}{row["p75"]:.1f}'


def ours(name: str, compiled: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of our networks, eager or under torch.compile, with their names in prose."""
    for row in results(name)['rows']:
        if row['model'] in NAMES and row.get('layout', '').partition(', ')[2] == ('compiled' if compiled else ''):
            yield NAMES[row['model']], row


def speed() -> str:
    """The README's table: latency beside networks of the same cost."""
    rows = [
        (name, f'{row["params"]:.1f}', f'{row["median"]:.1f}', row['counterpart'])
        + tuple(f'{row[key]:.2f}' for key in ('ratio_default', 'ratio_best'))
        for name, row in ours('latency')
    ]
    header = 'model | params, M | median, ms | counterpart (timm) | × its default layout | × its best layout'
    return table(header, rows)


def latency() -> str:
    """Latency of our classifiers, and the ratio to their counterparts."""
    rows = [
        (
            name,
            f'{row["params"]:.2f}',
            f'{row["median"]:.1f}',
            times(row),
            row['counterpart'],
            f'{row["ratio_default"]:.2f}',
            f'{row["ratio_best"]:.2f}',
        )
        for name, row in ours('latency')
    ]
    header = 'model | params, M | median, ms | p25–p75, ms | counterpart | × its default layout | × its best layout'
    return f'{table(header, rows)}\n\n{origin("latency")}'


def latency_compiled() -> str:
    """Latency of our classifiers under torch.compile, and the ratio to their counterparts under it."""
    rows = [
        (
            name,
            f'{row["median"]:.1f}',
            times(row),
            row['counterpart'],
            f'{row["ratio_default"]:.2f}',
            f'{row["ratio_best"]:.2f}',
        )
        for name, row in ours('latency', compiled=True)
    ]
    return table('model | median, ms | p25–p75, ms | counterpart | × its default layout | × its best layout', rows)


def latency_timm() -> str:
    """Latency of the networks that ours are compared with."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in results('latency')['rows']:
        if row['model'] not in NAMES:
            found.setdefault(row['model'], {})[row['layout']] = row
    rows = [
        (f'`{name}`', f'{layouts["contiguous"]["params"]:.2f}', f'{layouts["contiguous"]["top1"]:.1f}')
        + tuple(f'{layouts[key]["median"]:.1f}' for key in ('contiguous', 'channels_last'))
        for name, layouts in found.items()
    ]
    return table("model | params, M | top-1, % (the papers') | contiguous, ms | channels_last, ms", rows)


def upstream() -> str:
    """The compiled scan beside the released code's scan on a CPU, and beside none."""
    rows = [
        (
            name,
            f'{row["median"]:.1f}',
            f'{row["upstream_median"]:.0f}',
            f'{row["ratio"]:.1f}',
            f'{row["rest_median"]:.1f}',
            f'{row["bound"]:.1f}',
        )
        for name, row in ours('upstream')
    ]
    header = "model | ms | with upstream's scan, ms | upstream's / ours | without a scan, ms | upstream's / without"
    return f'{table(header, rows)}\n\n{origin("upstream")}'


def resolution() -> str:
    """Latency and peak memory by image size."""
    rows = results('resolution')['rows']
    sizes = sorted({row['resolution'] for row in rows})
    cells = {(row['model'], row['resolution']): f'{row["median"]:.0f}{_SLASH}{row["peak_mib"]:.0f}' for row in rows}
    growth = {row['model']: f'{row["relative"]:.2f}' for row in rows if row['resolution'] == sizes[-1]}
    lines = [
        (NAMES.get(name, f'`{name}`'), *(cells[name, size] for size in sizes), growth[name])
        for name in dict.fromkeys(row['model'] for row in rows)
    ]
    header = ' | '.join(['ms / MiB', *(f'{size}²' for size in sizes), f'cost per pixel, {sizes[-1]}² / {sizes[0]}²'])
    return f'{table(header, lines)}\n\n{origin("resolution")}'


def deploy() -> str:
    """Latency of exported models in each runtime."""
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for row in results('deploy')['rows']:
        cells.setdefault((row['model'], row['size']), {})[row['runtime']] = f'{row["median"]:.1f}'
    runtimes = ('ONNX Runtime', 'ONNX Runtime, function', 'OpenVINO', 'PyTorch')
    rows = [
        (NAMES.get(name, f'`{name}`'), f'{size}²', *(found.get(runtime, '–') for runtime in runtimes))
        for (name, size), found in cells.items()
    ]
    header = ' | '.join(['ms', 'image', *runtimes])
    return f'{table(header, rows)}\n\n{origin("deploy")}'


def memory() -> str:
    """Peak memory of a training step."""
    kinds = {'noop': 'replaced by nothing', 'real': 'compiled'}
    rows = [
        (kinds[row['scan']], f'{row["peak_mib"]:.0f}', f'{row["resident_mib"]:.0f}', f'{row["ratio"]:.2f}')
        for row in results('memory')['rows']
    ]
    header = 'scan | peak, MiB | of which weights and images, MiB | × without a scan'
    return f'{table(header, rows)}\n\n{origin("memory")}'


def training_step() -> str:
    """A training step of EVM-T beside those of networks of its class."""
    parts = {'backbone': 'backbone', 'retinanet': 'RetinaNet'}
    rows = [
        (
            parts[row['part']],
            NAMES.get(row['model'], f'`{row["model"]}`'),
            f'{row["params"]:.1f}',
            f'{row["median"]:.0f}',
            f'{row["ratio"]:.2f}',
            f'{row["noscan_time_ratio"]:.2f}' if 'noscan_time_ratio' in row else '–',
            f'{row["peak_mib"]:.0f}',
            f'{row["noscan_ratio"]:.2f}' if 'noscan_ratio' in row else '–',
        )
        for row in results('training_step')['rows']
    ]
    header = (
        'part | model | params, M | median, ms | × `pvt_v2_b0` | median × without a scan | peak, MiB | '
        'peak × without a scan'
    )
    return f'{table(header, rows)}\n\n{origin("training_step")}'


def equal_time() -> str:
    """Detectors that were trained for the same CPU time."""
    rows = [
        (
            DETECTORS[row['detector']],
            f'{row["params"]:.1f}',
            row['iterations'],
            f'{row["cpu"]:.0f}',
            f'{row["ap50"]:.3f}',
            f'{row["ap"]:.3f}',
        )
        for row in results('equal_time')['rows']
    ]
    header = 'detector | params, M | iterations of batch 4 | CPU time, s | AP50 | AP'
    return f'{table(header, rows)}\n\n{origin("equal_time")}'


TABLES: dict[str, Callable[[], str]] = {
    make.__name__: make
    for make in (
        models,
        configs,
        architectures,
        zoo,
        speed,
        latency,
        latency_compiled,
        latency_timm,
        upstream,
        resolution,
        training_step,
        memory,
        deploy,
        equal_time,
    )
}
"""Every table by the name under which a Markdown file asks for it."""


def files() -> list[Path]:
    """The README and the pages of the manual."""
    return [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def fill(text: str) -> str:
    """The text of a Markdown file with every table made anew.

    Raises:
        KeyError: If the text asks for a table that there is none of.
    """
    return BLOCK.sub(lambda block: f'{block[1]}\n{TABLES[block[2]]()}\n\n{block[3]}', text)


def main() -> None:
    """Write what has changed, and say where."""
    argparse.ArgumentParser(description='Write the tables of numbers in the README and the manual.').parse_args()
    for path in files():
        text = path.read_text(encoding='utf-8')
        if (current := fill(text)) != text:
            path.write_text(current, encoding='utf-8')
            print(f'updated: {path.relative_to(ROOT)}')


if __name__ == '__main__':
    main()
