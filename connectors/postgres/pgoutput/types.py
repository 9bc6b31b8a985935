"""What a column's type oid and type modifier mean: its DDL name and how its values become JSON.

The built-in types are known here; everything else (enums, domains, composites, extension types) is
asked from a `Catalog`. Names follow PostgreSQL's `format_type` (src/backend/utils/adt/format_type.c
and the `typmodout` functions of each type).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_SAFE_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_$]*")


class Kind(Enum):
    """How the text that PostgreSQL prints for a value becomes JSON."""

    INTEGER = "integer"  # a JSON number, as it is
    FLOAT = "float"  # a JSON number; NaN and the infinities as strings
    BOOLEAN = "boolean"
    PLAIN = "plain"  # a string in which nothing ever needs escaping
    TEXT = "text"  # a string
    TIMESTAMP = "timestamp"  # a string, ISO 8601
    TIMESTAMPTZ = "timestamptz"  # a string, ISO 8601 in UTC
    BYTEA = "bytea"  # a string, base64
    JSON = "json"  # embedded as it is
    ARRAY = "array"  # a JSON array


@dataclass(frozen=True, slots=True)
class ValueType:
    """A type, as far as its values go.

    Attributes:
        kind: How a value is rendered.
        name: The type's name without modifier, as `format_type(oid, NULL)` prints it; types that
            are not built in are always qualified with their schema.
        portable: False where the type exists only in its source.
        element: The type of an array's elements.
        delimiter: What separates an array's elements.
    """

    kind: Kind
    name: str
    portable: bool = True
    element: ValueType | None = None
    delimiter: str = ","

    @property
    def json(self) -> str:
        """What `contracts.Column.json` says about such values."""
        if self.element is None:
            return _JSON[self.kind]
        inner = self.element.json
        return f"array:{inner}" if inner in ("base64", "json") else "array"


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """A row of `pg_type`.

    Attributes:
        oid: `oid`.
        name: `typname`.
        schema: The name of `typnamespace`.
        typtype: `typtype`: `b` base, `c` composite, `d` domain, `e` enum, `r` range, `m`
            multirange.
        element_oid: `typelem` of a true array type (one that some type names as its `typarray`),
            otherwise 0.
        delimiter: `typdelim`.
    """

    oid: int
    name: str
    schema: str
    typtype: str
    element_oid: int
    delimiter: str


class Catalog(Protocol):
    """What the log does not carry and the system catalog knows."""

    def types(self, oids: Collection[int]) -> dict[int, TypeInfo]:
        """Look types up; those that no longer exist are missing from the result."""
        ...

    def primary_key(self, relation_oid: int) -> tuple[str, ...]:
        """The columns of a table's primary key, in key order; empty when it has none."""
        ...


_JSON = {
    Kind.INTEGER: "number",
    Kind.FLOAT: "number",
    Kind.BOOLEAN: "boolean",
    Kind.PLAIN: "string",
    Kind.TEXT: "string",
    Kind.TIMESTAMP: "string",
    Kind.TIMESTAMPTZ: "string",
    Kind.BYTEA: "base64",
    Kind.JSON: "json",
}

# kind -> `oid name array-oid`, from src/include/catalog/pg_type.dat (PostgreSQL 13 to 18). `@`
# stands for a name that `format_type` prints in quotes.
_SCALARS = {
    Kind.INTEGER: "20 bigint 1016, 21 smallint 1005, 23 integer 1007, 26 oid 1028",
    Kind.FLOAT: "700 real 1021, 701 double precision 1022",
    Kind.BOOLEAN: "16 boolean 1000",
    Kind.BYTEA: "17 bytea 1001",
    Kind.JSON: "114 json 199, 3802 jsonb 3807",
    Kind.TIMESTAMP: "1114 timestamp without time zone 1115",
    Kind.TIMESTAMPTZ: "1184 timestamp with time zone 1185",
    Kind.PLAIN: (
        "1700 numeric 1231, 1082 date 1182, 1083 time without time zone 1183,"
        "1266 time with time zone 1270, 1186 interval 1187, 2950 uuid 2951, 1560 bit 1561,"
        "1562 bit varying 1563, 869 inet 1041, 650 cidr 651, 829 macaddr 1040, 774 macaddr8 775,"
        "3220 pg_lsn 3221, 27 tid 1010, 28 xid 1011, 29 cid 1012, 5069 xid8 271,"
        "600 point 1017, 601 lseg 1018, 602 path 1019, 603 box 1020, 604 polygon 1027,"
        "628 line 629, 718 circle 719, 2970 txid_snapshot 2949, 5038 pg_snapshot 5039,"
        "22 int2vector 1006, 30 oidvector 1013"
    ),
    Kind.TEXT: (
        "25 text 1009, 1043 character varying 1015, 1042 character 1014, 18 @char 1002,"
        "19 name 1003, 142 xml 143, 790 money 791, 3614 tsvector 3643, 3615 tsquery 3645,"
        "3642 gtsvector 3644, 4072 jsonpath 4073, 1790 refcursor 2201, 1033 aclitem 1034,"
        "24 regproc 1008, 2202 regprocedure 2207, 2203 regoper 2208, 2204 regoperator 2209,"
        "2205 regclass 2210, 2206 regtype 2211, 3734 regconfig 3735, 3769 regdictionary 3770,"
        "4089 regnamespace 4090, 4096 regrole 4097, 4191 regcollation 4192,"
        "3904 int4range 3905, 3906 numrange 3907, 3908 tsrange 3909, 3910 tstzrange 3911,"
        "3912 daterange 3913, 3926 int8range 3927, 4451 int4multirange 6150,"
        "4532 nummultirange 6151, 4533 tsmultirange 6152, 4534 tstzmultirange 6153,"
        "4535 datemultirange 6155, 4536 int8multirange 6157,"
        "194 pg_node_tree 0, 3361 pg_ndistinct 0, 3402 pg_dependencies 0, 5017 pg_mcv_list 0,"
        "4600 pg_brin_bloom_summary 0, 4601 pg_brin_minmax_multi_summary 0"
    ),
}
_BOX = 603
_SECOND = 1 << 12
# `INTERVAL_MASK`s of src/include/utils/timestamp.h, in the order in which they are printed.
_INTERVAL_FIELDS = (
    (1 << 2, "year"),
    (1 << 1, "month"),
    (1 << 3, "day"),
    (1 << 10, "hour"),
    (1 << 11, "minute"),
    (_SECOND, "second"),
)
_INTERVAL_ALL = 0x7FFF
_FULL_PRECISION = 0xFFFF


def _builtin() -> dict[int, ValueType]:
    types: dict[int, ValueType] = {}
    for kind, lines in _SCALARS.items():
        for line in lines.split(","):
            oid, *words, array = line.split()
            name = " ".join(words)
            if name.startswith("@"):
                name = f'"{name[1:]}"'
            scalar = types[int(oid)] = ValueType(kind, name)
            if array != "0":
                delimiter = ";" if int(oid) == _BOX else ","
                types[int(array)] = ValueType(
                    Kind.ARRAY, f"{name}[]", element=scalar, delimiter=delimiter
                )
    return types


BUILTIN = _builtin()


def type_name(oid: int, type_: ValueType, modifier: int) -> str:
    """The type as in DDL, the way `format_type(oid, modifier)` prints it.

    Args:
        oid: The type's oid.
        type_: What the oid stands for.
        modifier: `atttypmod`; -1: none.
    """
    if type_.element is not None:
        element = _ELEMENT_OIDS.get(oid)
        return f"{type_name(element, type_.element, modifier)}[]" if element else type_.name
    if modifier < 0:
        # Without a length these two mean something else than the keywords `character` and `bit`.
        return {1042: "bpchar", 1560: '"bit"'}.get(oid, type_.name)
    printer = _MODIFIERS.get(oid)
    return printer(type_.name, modifier) if printer else type_.name


def _length(name: str, modifier: int) -> str:
    return f"{name}({modifier - 4})" if modifier > 4 else name


def _bits(name: str, modifier: int) -> str:
    return f"{name}({modifier})"


def _numeric(name: str, modifier: int) -> str:
    if modifier < 4:
        return name
    packed = modifier - 4
    # The scale is an 11-bit two's complement since 15; before, it was never negative.
    scale = ((packed & 0x7FF) ^ 1024) - 1024
    return f"{name}({packed >> 16 & 0xFFFF},{scale})"


def _time(name: str, modifier: int) -> str:
    word, _, rest = name.partition(" ")
    return f"{word}({modifier}) {rest}"


def _interval(name: str, modifier: int) -> str:
    fields, precision = modifier >> 16 & _INTERVAL_ALL, modifier & _FULL_PRECISION
    if fields != _INTERVAL_ALL:
        names = [word for mask, word in _INTERVAL_FIELDS if fields & mask]
        span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        name = f"{name} {span}"
    return name if precision == _FULL_PRECISION else f"{name}({precision})"


_MODIFIERS: dict[int, Callable[[str, int], str]] = {
    1042: _length,
    1043: _length,
    1560: _bits,
    1562: _bits,
    1700: _numeric,
    1083: _time,
    1114: _time,
    1184: _time,
    1266: _time,
    1186: _interval,
}
_ELEMENT_OIDS = {
    int(words[-1]): int(words[0])
    for lines in _SCALARS.values()
    for words in (line.split() for line in lines.split(","))
    if words[-1] != "0"
}


class TypeResolver:
    """Finds out what type oids mean; asks the catalog once for each it does not know.

    Args:
        catalog: Where types that are not built in are looked up.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known = dict(BUILTIN)
        self._announced: dict[int, str] = {}

    def announce(self, oid: int, schema: str, name: str) -> None:
        """Remember a name that the log gave for a type, in case the catalog has none any more."""
        self._announced[oid] = qualified(schema, name)

    def resolve(self, oids: Collection[int]) -> dict[int, ValueType]:
        """Tell what each oid stands for. A type that is nowhere to be found is text."""
        missing = {oid for oid in oids if oid not in self._known}
        if missing:
            self._look_up(missing)
        return {oid: self._known[oid] for oid in oids}

    def _look_up(self, oids: set[int]) -> None:
        found = self._catalog.types(sorted(oids))
        elements = {info.element_oid for info in found.values() if info.element_oid}
        missing = elements - self._known.keys() - found.keys()
        if missing:
            found = {**found, **self._catalog.types(sorted(missing))}
        for oid in (oids | missing) - found.keys():
            name = self._announced.get(oid, f"pg_catalog.unknown_{oid}")
            self._known[oid] = ValueType(Kind.TEXT, name, portable=False)
        # Elements first: an array's type is made from its element's.
        for info in sorted(found.values(), key=lambda info: info.element_oid != 0):
            self._known[info.oid] = self._from_catalog(info)

    def _from_catalog(self, info: TypeInfo) -> ValueType:
        if not info.element_oid:
            return ValueType(Kind.TEXT, qualified(info.schema, info.name), portable=False)
        element = self._known[info.element_oid]
        return ValueType(
            Kind.ARRAY,
            f"{element.name}[]",
            portable=element.portable,
            element=element,
            delimiter=info.delimiter,
        )


def qualified(schema: str, name: str) -> str:
    """`schema.name`, each part in quotes where it is not a plain lower-case identifier."""
    return f"{_identifier(schema)}.{_identifier(name)}"


def _identifier(name: str) -> str:
    return name if _SAFE_IDENTIFIER.fullmatch(name) else '"' + name.replace('"', '""') + '"'
