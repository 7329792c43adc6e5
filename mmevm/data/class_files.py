"""Files that name the classes of label maps, with or without their values or colours."""

import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmevm.data.pairs import MASK_FOLDERS
from mmevm.data.records import Findings, files, is_split_folder, repeated, subfolders, text_lines
from mmevm.errors import UsageError

#: Heading of reports of such names.
DIFFER = 'Classes whose names differ in case alone, or in Unicode normalization'

_CLASS_FILES = (
    'classes.txt', 'classes.json', 'class_dict.csv', 'labels.txt', 'labelmap.txt', 'names.txt', 'label_map.json',
    '_classes.csv',
)  # fmt: skip
_COMMENT = re.compile(r'#+\s|#.*(class|label|name)', re.IGNORECASE)
_SEPARATED = r'\s*[:,;\s]\s*'

_Stated = tuple[list[str], dict[int, int] | None, bool]


def class_file(root: Path) -> Path | None:
    """Return the file that names the classes of a folder's label maps, of several the first."""
    return next(iter(_class_files(root)), None)


def _class_files(root: Path) -> list[Path]:
    """Return the files of classes in a folder, and in its folders of splits and of label maps."""
    outer = list(filter(_may_have_classes, subfolders(root)))
    places = [root, *outer, *(inner for folder in outer for inner in filter(_may_have_classes, subfolders(folder)))]
    found = [(place, {file.name.casefold(): file for file in files(place)}) for place in places]
    return [present[name] for _, present in found for name in _CLASS_FILES if name in present]


def _may_have_classes(folder: Path) -> bool:
    return is_split_folder(folder.name) or folder.name.casefold() in MASK_FOLDERS


def report_differing(root: Path, findings: Findings) -> None:
    """Report that files name different classes: which is used, if it is the whole dataset's, else a problem."""
    used, *others = _class_files(root)
    if different := [str(file) for file in others if _differ(used, file)]:
        if used.parent == root:
            findings.note(f'Classes are those of {used}; files that name others, left out:', *different)
        else:
            heading = 'Files that name different classes; keep one, in the folder of the dataset:'
            findings.problem(heading, str(used), *different)


def _differ(file: Path, other: Path) -> bool:
    try:
        return stated_classes(file)[0] != stated_classes(other)[0]
    except UsageError:  # of a file that is not used
        return True


def alike(names: Iterable[str]) -> list[str]:
    """Return the names that differ from others only in case or in Unicode normalization."""
    plain = {name: unicodedata.normalize('NFC', unicodedata.normalize('NFC', name).casefold()) for name in names}
    counts = Counter(plain.values())
    return [name for name, form in plain.items() if counts[form] > 1]


def stated_classes(file: Path) -> _Stated:
    """Return the names of a file of classes, the class of every value if it has them, and whether these are colours."""
    try:
        text = file.read_text(encoding='utf-8-sig')
        if file.suffix.lower() == '.json':
            return _json_classes(json.loads(text))
        lines, is_table = text_lines(file), file.suffix.lower() == '.csv'
        if is_table and ((rows := _rows(text)) or not all(len(re.split('[,;\t]', line)) == 2 for line in lines)):
            return *_colours(rows), True
        coloured = [re.fullmatch(r'([^:#]+):(\d+),(\d+),(\d+)(:.*)?', name) for name in lines if name[0] != '#']
        if coloured and all(coloured):  # CVAT's labelmap.txt
            return *_colours([list(match.groups()[:4]) for match in coloured if match]), True
        has_heading = is_table or bool(lines and _COMMENT.match(lines[0]))
        if numbered := _numbered(lines) or (has_heading and _numbered(lines[1:])):
            return *_by_value(numbered), False
        if is_table:
            raise ValueError('expected a value and a name in each row')
    except (TypeError, ValueError) as error:
        raise UsageError(f'{file} cannot be read: {error}') from error
    if lines[:1] == ['__ignore__']:  # labelme's, which counts from -1
        return lines[1:], {value: value for value in range(len(lines) - 1)}, False
    return lines, None, False


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


def without_comment(names: list[str], highest: int) -> list[str]:
    """Return names without a comment in the first line, if the others are enough for values up to the highest."""
    is_comment = len(names) > 1 and _COMMENT.match(names[0]) and len(names) - 1 in (highest, highest + 1)
    return names[1:] if is_comment else names


def _numbered(lines: Sequence[str]) -> list[tuple[int, str]]:
    """Return values and names, if every line has both, in whatever order; names may end with numbers, too."""
    found = [re.fullmatch(rf'(\d+){_SEPARATED}(.+)', line) for line in lines]
    if found and all(found):
        return [(int(match[1]), match[2]) for match in found if match]
    found = [re.fullmatch(rf'(?!.*\d{_SEPARATED}\d+{_SEPARATED}\d+$)(.+?){_SEPARATED}(\d+)', line) for line in lines]
    pairs = [(int(match[2]), match[1]) for match in found if match]
    are_values = len(pairs) == len(lines) and not any(map(repeated, zip(*pairs, strict=True)))
    return pairs if are_values and all(value <= 255 for value, _ in pairs) else []


def _by_value(pairs: Iterable[tuple[int, str]]) -> tuple[list[str], dict[int, int]]:
    names = sorted(pairs)
    if twice := repeated(value for value, _ in names):
        raise ValueError(f'expected one name for each value, and {twice[0]} has several')
    return [name for _, name in names], {value: index for index, (value, _) in enumerate(names)}


def _text(name: object) -> str:
    """Return a name, of an object with ``name`` as well."""
    if isinstance(name, dict):
        name = name.get('name')
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise ValueError(f'expected names of classes that are text, got {name!r}')
    return str(name)


def _json_classes(content: object) -> _Stated:
    if isinstance(content, dict) and isinstance(content.get('classes'), list | dict):
        content = content['classes']
    if isinstance(content, list) and all(isinstance(item, dict) and {'id', 'name'} <= item.keys() for item in content):
        return *_by_value((int(item['id']), _text(item)) for item in content), False
    if isinstance(content, list) and not any(isinstance(item, dict) for item in content):
        return list(map(_text, content)), None, False
    if isinstance(content, dict) and content and all(str(key).isdigit() for key in content):
        return *_by_value((int(key), _text(name)) for key, name in content.items()), False
    if isinstance(content, dict) and content and all(type(value) is int for value in content.values()):
        return *_by_value((value, name) for name, value in content.items()), False
    if isinstance(content, dict) and content and all(isinstance(v, list) and len(v) == 3 for v in content.values()):
        return *_colours([[str(name), *map(str, colour)] for name, colour in content.items()]), True
    raise ValueError('expected a list of names, or an object with names by value or values by name')
