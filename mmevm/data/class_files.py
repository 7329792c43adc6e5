"""Files that name the classes of label maps, with or without their values or colours."""

import csv
import json
import re
from pathlib import Path

from mmevm.data.records import text_lines
from mmevm.errors import UsageError

_CLASS_FILES = (
    'classes.txt', 'classes.json', 'class_dict.csv', 'labels.txt', 'labelmap.txt', 'names.txt', 'label_map.json',
)  # fmt: skip


def class_file(root: Path) -> Path | None:
    """Return the file in a folder that names the classes of its label maps."""
    return next((root / name for name in _CLASS_FILES if (root / name).is_file()), None)


def stated_classes(file: Path) -> tuple[list[str], dict[int, int] | None, bool]:
    """Return the names of a file of classes, the class of every value if it has them, and whether these are colours."""
    try:
        text = file.read_text(encoding='utf-8-sig')
        if file.suffix == '.csv':
            return *_colours(_rows(text)), True
        if file.suffix == '.json':
            return _json_classes(json.loads(text))
        names = text_lines(file)
    except ValueError as error:
        raise UsageError(f'{file} cannot be read: {error}') from error
    coloured = [re.fullmatch(r'([^:#]+):(\d+),(\d+),(\d+)(:.*)?', name) for name in names if name[0] != '#']
    if coloured and all(coloured):  # CVAT's labelmap.txt
        return *_colours([list(match.groups()[:4]) for match in coloured if match]), True
    numbered = [re.fullmatch(r'(\d+)\s*[:,;\s]\s*(.+)', name) for name in names]
    if names and all(numbered):
        return *_by_value({int(match[1]): match[2] for match in numbered if match}), False
    return names, None, False


def _rows(text: str) -> list[list[str]]:
    """Return the rows of a table of names and colours, the name first, whatever separates the columns."""
    first = text.partition('\n')[0]
    delimiter = max(',;\t', key=first.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    words = {'red': 'r', 'green': 'g', 'blue': 'b'}
    header = [words.get(cell.casefold(), cell.casefold()) for cell in rows[0]] if rows else []
    if {'r', 'g', 'b'} <= set(header) and header[1:4] != ['r', 'g', 'b']:
        order = [header.index(letter) for letter in 'rgb']
        name = next((index for index in range(len(header)) if index not in order), 0)
        rows = [[row[name], *(row[index] for index in order)] for row in rows if len(row) == len(header)]
    return [row for row in rows if len(row) >= 4 and all(cell.isdigit() for cell in row[1:4])]


def _colours(rows: list[list[str]]) -> tuple[list[str], dict[int, int]]:
    if not rows:
        raise ValueError('expected a name and the values of red, green and blue in each row')
    numbers = {int(r) << 16 | int(g) << 8 | int(b): name for name, r, g, b, *_ in rows}
    return list(numbers.values()), {value: index for index, value in enumerate(numbers)}


def _by_value(names: dict[int, str]) -> tuple[list[str], dict[int, int]]:
    values = sorted(names)
    return [names[value] for value in values], {value: index for index, value in enumerate(values)}


def _json_classes(content: object) -> tuple[list[str], dict[int, int] | None, bool]:
    if isinstance(content, dict) and isinstance(content.get('classes'), list | dict):
        content = content['classes']
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return list(content), None, False
    if isinstance(content, list) and all(isinstance(item, dict) and {'id', 'name'} <= item.keys() for item in content):
        return *_by_value({int(item['id']): str(item['name']) for item in content}), False
    if isinstance(content, dict) and content and all(str(key).isdigit() for key in content):
        return *_by_value({int(key): str(name) for key, name in content.items()}), False
    if isinstance(content, dict) and content and all(isinstance(value, int) for value in content.values()):
        return *_by_value({value: str(name) for name, value in content.items()}), False
    if isinstance(content, dict) and content and all(isinstance(v, list) and len(v) == 3 for v in content.values()):
        return *_colours([[str(name), *map(str, colour)] for name, colour in content.items()]), True
    raise ValueError('expected a list of names, or an object with names by value or values by name')
