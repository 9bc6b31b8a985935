"""Backfills that are asked for in memory, for tests of a source alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from connectors.contracts.backfills import BackfillRequest, Stage, Wish

if TYPE_CHECKING:
    from connectors.contracts.backfills import BackfillStatus


@dataclass
class AskedBackfills:
    """Implements `contracts.Backfills`; what is told is stored at once."""

    asked: dict[str, BackfillRequest] = field(default_factory=dict)
    told: dict[str, list[BackfillStatus]] = field(default_factory=dict)

    def ask(self, name: str, *tables: str, where: str = "", sink: str = "", rate: int = 0) -> None:
        self.asked[name] = BackfillRequest(name, len(self.asked), tables, where, sink, rate)

    def wish(self, name: str, wish: Wish) -> None:
        self.asked[name] = replace(self.asked[name], wish=wish)

    def stage(self, name: str) -> Stage:
        return self.told[name][-1].stage if name in self.told else Stage.QUEUED

    def open(self) -> list[BackfillRequest]:
        return [each for each in self.asked.values() if not self.stage(each.id).final]

    def known(self, backfill: str) -> BackfillStatus | None:
        return self.told[backfill][-1] if backfill in self.told else None

    def tell(self, backfill: str, status: BackfillStatus) -> None:
        self.told.setdefault(backfill, []).append(status)

    def close(self) -> None:
        """There is nothing to close."""
