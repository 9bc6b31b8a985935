"""What a source tells of its slot while others look."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.integration.postgres_capture import ids, make_source, read_changes
from tests.integration.streams import until

if TYPE_CHECKING:
    from connectors.contracts.source import SourceReader
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers


def test_a_slot_that_is_still_being_made_is_not_active(database: Database) -> None:
    source = make_source(database.dsn, database.name)
    opened: list[SourceReader] = []
    with closing(database.connect()) as writer, closing(database.connect()) as other:
        writer.execute("CREATE TABLE items (id int PRIMARY KEY)")
        # The server waits for the end of every transaction that runs before it settles the start.
        writer.execute("BEGIN")
        writer.execute("INSERT INTO items VALUES (1)")
        opening = threading.Thread(target=lambda: opened.append(source.open(None)))
        opening.start()
        try:
            until(lambda: bool(source.observe(None).retained))
            assert not source.observe(None).slot_active
            other.execute("INSERT INTO items VALUES (2)")
            assert not source.observe(None).slot_active
        finally:
            writer.execute("COMMIT")
            opening.join()
        with closing(opened[0]) as reader:
            assert source.observe(None).slot_active
            other.execute("INSERT INTO items VALUES (3)")
            # Neither row of before: that is why nobody may be told of the slot by then.
            assert ids(read_changes(reader, 1)) == [3]
