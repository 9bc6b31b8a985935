"""How the command line says what becomes of what a deleted source has made."""

from __future__ import annotations

from typing import Literal

from control.pb.cdc.v1 import cdc_pb2 as cdc

Keep = Literal["keep", "drop"]
DISPOSALS: dict[Keep, cdc.Disposal.ValueType] = {
    "keep": cdc.DISPOSAL_KEEP,
    "drop": cdc.DISPOSAL_DROP,
}
