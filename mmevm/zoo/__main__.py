"""Released checkpoints: ``python -m mmevm.zoo list | show NAME | download NAME | verify FILE | convert IN OUT``."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from mmevm.checkpoint.identify import identify
from mmevm.checkpoint.weights_only import CheckpointError, load_file
from mmevm.errors import UsageError, exit_status
from mmevm.files import file_hash, replacing
from mmevm.zoo import ENTRIES, Entry, convert, fetch, find_entry
from mmevm.zoo.cache import cached_path, recorded_hash
from mmevm.zoo.conversion import read_metadata, tensors_hash
from mmevm.zoo.verify import check_bytes, check_content


def _state(entry: Entry) -> str:
    if not entry.available:
        return f'no {entry.architecture} backbone yet'
    return 'in the cache' if cached_path(entry).is_file() else 'to be downloaded'


def _list(args: argparse.Namespace) -> None:
    rows = [('name', 'task', "authors' figure", 'MB', 'state')]
    for entry in ENTRIES.values():
        figure = f'{entry.paper} ({entry.metric})' if entry.paper else '–'
        rows.append((entry.name, entry.task, figure, f'{entry.size / 1e6:.1f}' if entry.size else '–', _state(entry)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show(args: argparse.Namespace) -> None:
    entry = find_entry(args.name)
    path = cached_path(entry)
    unknown = 'none published; the first verified download records it, and later ones are held to that'
    fields = {
        'name': entry.name,
        'state': _state(entry),
        'architecture': ' '.join([entry.architecture, entry.arch, *(f'{k}={v}' for k, v in entry.options.items())]),
        'task': entry.task,
        'config': entry.config,
        'url': entry.url,
        'hub': entry.repo or '–',
        'size': f'about {entry.size / 1e6:.1f} MB' if entry.size else 'not published',
        'SHA-256': entry.sha256 or unknown,
        'recorded SHA-256': recorded_hash(path) or '–',
        'weights under': entry.key,
        'figure': f"{entry.paper or '–'}, {entry.metric} (its authors'; not measured here)",
        'source': entry.source,
        'licence': entry.licence,
        'converted from': entry.converted_from,
        'cached as': str(path),
    }
    for field, value in fields.items():
        print(f'{field + ":":18}{value}')


def _download(args: argparse.Namespace) -> None:
    path = fetch(find_entry(args.name).name)
    if args.to:
        target = Path(args.to).expanduser() / path.name
        with replacing(target) as draft:
            shutil.copyfile(path, draft)
        path = target
    print(f'{path}\nSHA-256 {file_hash(path)}')


def _verify(args: argparse.Namespace) -> None:
    path = Path(args.file).expanduser()
    content = load_file(path)
    print(f'{path}: {path.stat().st_size} bytes, opens as plain data\nSHA-256 {file_hash(path)}')
    metadata = read_metadata(path, content)
    if metadata:
        weights = content if path.suffix == '.safetensors' else content.get('state_dict', {})
        if tensors_hash(weights) != metadata.get('tensors_sha256'):
            raise CheckpointError(f'{path}: its tensors are not those that were written (tensors_sha256 differs)')
        print(*(f'{name}: {value}' for name, value in metadata.items()), sep='\n')
        return
    entries = [entry for entry in ENTRIES.values() if entry.file == path.name]
    print(f'architecture: {identify(content) or "no released backbone of mmevm"}')
    for entry in entries:
        hashes = {'the zoo': entry.sha256, 'the record in the cache': recorded_hash(cached_path(entry))}
        known = {origin: value for origin, value in hashes.items() if value}
        check_bytes(path, entry, known)
        check_content(path, entry)
        print(
            f'It is {entry.name}, ' + (f'by its hash ({", ".join(known)})' if known else 'but no hash of it is known')
        )


def _convert(args: argparse.Namespace) -> None:
    source = f'mmevm://{args.source}' if args.source in ENTRIES else args.source
    report = convert(source, args.target, args.layout, args.key)
    print(f'{args.target}: {report.tensors} tensors, {report.renamed} of them renamed')
    if report.dropped:
        print(f'left out: {", ".join(report.dropped)}')
    print(*(f'{name}: {value}' for name, value in report.metadata.items()), sep='\n')


def _parse(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog, description='Released checkpoints: list, download, verify and convert them.')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('list', help='all entries').set_defaults(run=_list)
    show = commands.add_parser('show', help='one entry in full')
    show.add_argument('name')
    show.set_defaults(run=_show)
    download = commands.add_parser('download', help='download and verify a checkpoint')
    download.add_argument('name')
    download.add_argument('--to', metavar='DIR', help='copy it there; by default it stays in the cache')
    download.set_defaults(run=_download)
    verify = commands.add_parser('verify', help='say what a file is, and whether it is intact')
    verify.add_argument('file')
    verify.set_defaults(run=_verify)
    conversion = commands.add_parser(
        'convert', help="rewrite a file: upstream's or mmevm's names, .pth or .safetensors"
    )
    conversion.add_argument('source', metavar='IN', help='a checkpoint file or the name of an entry')
    conversion.add_argument('target', metavar='OUT', help='ends with .safetensors, or is written by torch.save')
    conversion.add_argument('--layout', choices=('mmevm', 'upstream'), default='mmevm', help='whose parameter names')
    conversion.add_argument('--key', help='top-level key to take, such as model_ema')
    conversion.set_defaults(run=_convert)
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> None:
    try:
        args.run(args)
    except CheckpointError:
        raise
    except OSError as error:  # a folder that is not writable, a file that does not exist
        raise UsageError(str(error)) from error


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run ``tools/zoo.py`` or, as ``prog``, ``python -m mmevm.zoo``; return the exit status."""
    args = _parse(argv, prog)
    return exit_status(lambda: _run(args))


if __name__ == '__main__':
    raise SystemExit(main(prog='python -m mmevm.zoo'))
