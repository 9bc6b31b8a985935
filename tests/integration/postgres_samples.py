"""Values of every built-in PostgreSQL type, and what they should become in JSON.

The expectation is made from what SELECT prints, by other means than the product's: the server takes
arrays apart (`to_jsonb`), Python's own types read numbers and dates.
"""

from __future__ import annotations

import json
from base64 import b64encode
from decimal import Decimal
from typing import TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | bool | Decimal | None"

STAMPS = ["2026-11-22 19:45:06.3", "0001-12-31 23:59:59 BC", "infinity", "294276-12-31 23:59:59"]
TEXTS = [
    "",
    "plain",
    'q"uo\\te',
    "{a,b}",
    "NULL",
    "null",
    " sp ace ",
    "new\nline\t\r\x01\x1f\x7f",
    "é漢😀\u2028\x85\xa0",
    "t" * 255,
    "n" * 256,
    "u" * 257,
    "%s {0} $1 \\n",
    "a;b",
]
# By the name of the type. Anything left out has no values that can be written.
SAMPLES: dict[str, list[str]] = {
    "boolean": ["true", "false"],
    "bytea": ["\\x", "\\x00ff10", "\\x" + "ab" * 300],
    '"char"': ["x", '"', ""],
    "name": ["a_name", 'é"\\'],
    "bigint": ["-9223372036854775808", "9223372036854775807", "0"],
    "smallint": ["-32768", "1"],
    "integer": ["2147483647", "-1"],
    "oid": ["4294967295", "0"],
    "real": ["1.1", "NaN", "-Infinity", "3.4028235e+38", "1e-45"],
    "double precision": ["0.1", "NaN", "Infinity", "1e300", "5e-324", "-0", "123456789012345678"],
    "numeric": ["1.50", "NaN", "-0.0001", "1" * 60, "1e-30"],
    "text": TEXTS,
    "character varying": TEXTS,
    "bpchar": ["x", "é  "],
    "json": ['{"a" :\n 1.10, "a": [null, "\\u00e9"]}', "[]", '"x\\n"', "1e400", "null"],
    "jsonb": ['{"a": [1.10, {"b": null}]}', "12345678901234567890123", '"\\t{},"', "null"],
    "xml": ['<a b="c">x&amp;</a>'],
    "date": ["2026-11-22", "0044-03-15 BC", "infinity", "-infinity", "10000-01-01"],
    "time without time zone": ["19:45:06.3", "24:00:00"],
    "time with time zone": ["19:45:06.3+05:30", "00:00:00-08"],
    "timestamp without time zone": STAMPS,
    "timestamp with time zone": [
        "2026-11-22 19:45:06.3+05",
        "0001-12-31 23:59:59+00 BC",
        "-infinity",
        "294276-12-31 23:59:59+00",
        "10000-01-01 00:00:00+00",
    ],
    "interval": ["1 year 2 months -3 days 04:05:06.7", "0", "-1 day"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    '"bit"': ["1", "0"],
    "bit varying": ["", "10101"],
    "inet": ["192.168.0.1/24", "::1", "10.0.0.1"],
    "cidr": ["10.0.0.0/8", "2001:db8::/32"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "money": ["-1234.56", "0"],
    "point": ["(1.5,-2)", "(NaN,Infinity)"],
    "lseg": ["[(0,0),(1,1)]"],
    "path": ["((0,0),(1,1))", "[(0,0),(1,1)]"],
    "box": ["(2,2),(1,1)"],
    "polygon": ["((0,0),(1,1),(2,0))"],
    "line": ["{1,-1,0}"],
    "circle": ["<(1,2),3>"],
    "tsvector": ["'a':1A 'it''s':2 'q\"\\\\':3"],
    "tsquery": ["'a' & !'b\"'"],
    "jsonpath": ['$."a"[*] ? (@ > "x")'],
    "pg_lsn": ["16/B374D848", "0/0"],
    "tid": ["(1,2)"],
    "xid": ["77"],
    "cid": ["3"],
    "xid8": ["18446744073709551615"],
    "txid_snapshot": ["10:20:10,14"],
    "pg_snapshot": ["10:20:"],
    "int2vector": ["1 2 3", ""],
    "oidvector": ["4294967295 0"],
    "refcursor": ['cur"sor'],
    "aclitem": ["=r/{user}"],
    "regproc": ["now"],
    "regprocedure": ["abs(integer)"],
    "regoper": ["pg_catalog.||/"],
    "regoperator": ["+(integer,integer)"],
    "regclass": ["pg_class"],
    "regtype": ["timestamp with time zone"],
    "regconfig": ["english"],
    "regdictionary": ["simple"],
    "regnamespace": ["pg_catalog"],
    "regrole": ["pg_monitor"],
    "regcollation": ['"C"'],
    "int4range": ["[1,5)", "empty", "(,)"],
    "numrange": ["[1.50,)"],
    "tsrange": ['["2026-11-22 19:45:06","2026-11-23 00:00:00")'],
    "tstzrange": ['["2026-11-22 19:45:06+00",)'],
    "daterange": ["[2026-11-22,2026-11-25)"],
    "int8range": ["[-1,1)"],
    "int4multirange": ["{[1,5),[7,9)}", "{}"],
    "nummultirange": ["{[1.5,2.5)}"],
    "tsmultirange": ['{["2026-11-22 19:45:06",)}'],
    "tstzmultirange": ['{["2026-11-22 19:45:06+00",)}'],
    "datemultirange": ["{[2026-11-22,2026-11-25)}"],
    "int8multirange": ["{[1,5)}"],
}
# Outside the catalog's pseudo-types, these take no input.
UNWRITABLE = {
    "gtsvector",
    "pg_node_tree",
    "pg_ndistinct",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
}


def loads(data: bytes | str) -> Json:
    """JSON with every number as it is written."""
    return json.loads(data, parse_float=Decimal, parse_int=Decimal)  # type: ignore[no-any-return]


def expected(type_name: str, printed: Json) -> Json:
    """What a value should become, from its text, or from the texts of an array's elements."""
    if printed is None or isinstance(printed, list):
        return printed and [expected(type_name.removesuffix("[]"), item) for item in printed]
    text = str(printed)
    match type_name:
        case "smallint" | "integer" | "bigint" | "oid":
            return Decimal(text)
        case "real" | "double precision":
            return Decimal(text) if Decimal(text).is_finite() else text
        case "boolean":
            return text in ("t", "true")
        case "json" | "jsonb":
            return loads(text)
        case "bytea":
            return b64encode(bytes.fromhex(text[2:])).decode()
        case "timestamp without time zone" | "timestamp with time zone" if "BC" not in text:
            return text.replace(" ", "T").replace("+00", "Z")
    return text
