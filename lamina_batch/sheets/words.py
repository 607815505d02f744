"""Findings in words for a person who has the products before them and knows no pipeline file.

The marked workbook says them and the report: there is one table of them, this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina_batch.catalog.input_validator import quote_value
from lamina_batch.errors import did_you_mean
from lamina_batch.sources.table import normalise_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina_batch.sources.table import Catalog


def named_columns(catalog: Catalog) -> dict[str, str]:
    """The columns by what a finding may call them."""
    return {normalise_header(name): name for name in catalog.columns} | {name: name for name in catalog.columns}


def split_columns(named: str, known: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that a finding names, one or several with commas between them; names may hold commas too."""
    words = named.split(", ")
    columns: list[str] = []
    while words:
        for end in range(len(words), 0, -1):
            name = ", ".join(words[:end])
            column = known.get(name) or known.get(normalise_header(name))
            if column is not None:
                columns.append(column)
                break
        else:
            end = 1
        words = words[end:]
    return tuple(dict.fromkeys(columns))


def explain_for_merchandiser(line: Mapping[str, str], choices: Sequence[str]) -> tuple[str, str]:
    """What is wrong and what to do, for a person who has the sheet before them and knows no pipeline file."""
    match line["code"]:
        case "blank_key":
            return "This is blank, and it names the product", "fill it: every product has its own"
        case "duplicate_key":
            rows = line["message"].partition(" share ")[0]
            return f"{rows} have the same, and are not the same product", "give each product its own"
        case "blank_image":
            return "The picture is missing", "paste its web address (https://…)"
        case "missing_input":
            return "This must be filled", ""
        case "invalid_option" if choices:
            near = did_you_mean(line["value"], choices)
            labels = ", ".join(choice.strip() for choice in choices[:_MAX_LISTED])
            more = ", …" if len(choices) > _MAX_LISTED else ""
            listed = f"the list has {labels}{more}"
            return f"“{line['value']}” is not on the list", f"{near} {listed}" if near else listed
        case "invalid_type":
            return "This is not written as it has to be", line["hint"]
        case "invalid_url":
            return "This is no web address of a file", line["hint"].removeprefix("the service fetches it itself: ")
        case _:
            # What is said of a value need not repeat it: it stands in the cell.
            said = line["message"].removeprefix(f"{quote_value(line['value'])} ")
            return said if said == line["message"] else f"This {said}", line["hint"]


_MAX_LISTED = 12
