"""Columns of other people's tables, of any Arrow type: views, dictionaries and extensions as their plain twins."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

Image = bytes | Mapping[str, Any] | None


def plain_type(kind: Any) -> Any:
    """The type of the values: of an extension what it is stored as, of a dictionary or of runs what they stand for."""
    import pyarrow

    if isinstance(kind, pyarrow.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pyarrow.types.is_dictionary(kind) or pyarrow.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    return kind


def holds_images(kind: Any) -> bool:
    """Whether a type is the bytes of image files, or a struct with a field `bytes` of these."""
    from pyarrow import types

    kind = plain_type(kind)
    if types.is_struct(kind):
        if kind.get_field_index("bytes") < 0:
            return False
        kind = plain_type(kind.field("bytes").type)
    checks = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def holds_labels(kind: Any) -> bool:
    """Whether a type is numbers, text or booleans."""
    from pyarrow import types

    numbers = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    return any(check(plain_type(kind)) for check in (*numbers, *texts))


def values_of(array: Any) -> list[Any]:
    """The values of an array as Python's own; text that is not UTF-8 with its odd bytes as \\xNN."""
    import pyarrow

    if isinstance(array, pyarrow.ExtensionArray):
        return values_of(array.storage)
    if isinstance(array, pyarrow.DictionaryArray):
        # One by one: a dictionary can have more entries than there is memory for.
        chosen = array.indices.to_pylist()
        return [None if index is None else values_of(array.dictionary.slice(index, 1))[0] for index in chosen]
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        texts = (value.as_buffer() for value in array)
        return [None if text is None else text.to_pybytes().decode("utf-8", "backslashreplace") for text in texts]


def images_of(array: Any) -> list[Image]:
    """The images of an array: bytes, or mappings with `bytes` and perhaps `path`."""
    import pyarrow

    if isinstance(array, pyarrow.ExtensionArray):
        return images_of(array.storage)
    if not isinstance(array, pyarrow.StructArray):
        return values_of(array)
    names = [name for name in ("bytes", "path") if array.type.get_field_index(name) >= 0]
    columns = [values_of(array.field(name)) for name in names]
    present = array.is_valid().to_pylist()
    return [
        dict(zip(names, row, strict=True)) if there else None
        for there, row in zip(present, zip(*columns, strict=True), strict=True)
    ]


def plain_label(value: Any) -> int | float | str | None:
    """A label as params.yaml would write it: files written by pandas may hold 1.0 for 1, and nan for nothing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Decimal) and not value.is_nan():
        return int(value) if value == value.to_integral_value() else float(value)
    number = value if isinstance(value, int) else float(value)
    if math.isnan(number):
        return None
    return int(number) if number == number // 1 else number
