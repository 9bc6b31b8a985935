"""What commands print: a table, JSON or YAML."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import yaml
from cyclopts import Parameter
from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.protobuf.message import Message

Format = Annotated[Literal["table", "json", "yaml"], Parameter(name=["--output", "-o"])]

# Wide enough for a line each where no terminal tells how wide it is.
_WIDTH = 200


def plain(message: Message) -> dict[str, object]:
    """A message as JSON and YAML show it: fields by their names in the API."""
    return MessageToDict(message, preserving_proto_field_name=True)


def exact(text: str) -> object:
    """What JSON holds, with every digit of its numbers; `show` prints them as they are."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def text_of(value: object) -> str:
    """JSON without blanks of what `exact` has read."""
    return _encode(value).decode()


def show(value: object, form: Literal["json", "yaml"]) -> None:
    """Print what JSON can hold."""
    if form == "json":
        print(msgspec.json.format(_encode(value), indent=2).decode())
    else:
        yaml.dump(value, sys.stdout, _Exact, sort_keys=False, allow_unicode=True)


def utc(given: datetime) -> datetime:
    """A time as it is given; UTC unless it says otherwise."""
    return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)


def print_payload(out: Console, text: str) -> None:
    """Print JSON for people, its numbers as they are written; what is no JSON as it stands."""
    try:
        text = msgspec.json.format(text, indent=2)
    except msgspec.MsgspecError:
        out.print(text, highlight=False, soft_wrap=True)
        return
    out.print(JSONHighlighter()(text), soft_wrap=True)


def show_messages(
    messages: Iterable[Message],
    form: Literal["table", "json", "yaml"],
    rows: Iterable[Mapping[str, object]],
    columns: Sequence[str],
) -> None:
    """Print messages: whole as a list, or a row each as a table.

    Args:
        messages: What JSON and YAML show.
        form: Which form.
        rows: What the table shows, by the columns' names.
        columns: The table's, in their order.
    """
    if form != "table":
        show([plain(message) for message in messages], form)
        return
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in columns))
    console().print(table)


def console() -> Console:
    """Where tables go. Without markup: keys and errors have brackets of their own."""
    return Console(markup=False, width=None if sys.stdout.isatty() else _WIDTH)


_encode = msgspec.json.Encoder(decimal_format="number").encode


class _Exact(yaml.SafeDumper):
    """Writes numbers with every digit."""


def _number(dumper: yaml.SafeDumper, value: Decimal) -> yaml.ScalarNode:
    text = str(value)
    kind = "int" if text.lstrip("-").isdigit() else "float"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", text)


_Exact.add_representer(Decimal, _number)
