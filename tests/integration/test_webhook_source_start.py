"""The webhook source against a real server: what keeps it from starting, and its checks."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.errors import ConfigError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from control.servers.ports import free_port
from tests.integration.webhook_site import Site

if TYPE_CHECKING:
    from control.servers.nats import NatsServer
    from tests.servers.certificate import Certificate

pytestmark = pytest.mark.servers


def test_a_port_in_use_and_a_body_that_does_not_fit_are_one_clear_error(site: Site) -> None:
    endpoint = site.serve()
    with pytest.raises(RetryableError) as taken:
        site.source(listen=f"127.0.0.1:{endpoint.port}").serve()
    assert taken.value.code == "webhook.port_in_use"
    assert str(endpoint.port) in str(taken.value)
    with pytest.raises(ConfigError) as large:
        site.source(max_body="2MiB").serve()
    assert large.value.code == "webhook.max_body"


def test_a_check_knows_its_own_endpoint_from_whatever_else_listens(
    site: Site, nats_server: NatsServer
) -> None:
    address = f"127.0.0.1:{free_port()}"
    source = site.source(serve=True, listen=address)
    with closing(source.open(None)):
        assert site.source(serve=True, listen=address).check() == []
        # Whatever else is to be changed with it.
        assert site.source(serve=True, listen=address, verify={"bearer": ["other"]}).check() == []
        other = Site(nats_server)
        (found,) = other.source(serve=True, listen=address).check()
        assert (found.code, found.where) == ("webhook.port_in_use", "listen")
        assert other.source(serve=False, listen=address).check() == []
        assert other.source().drop() == []
        with pytest.raises(RetryableError, match="cannot listen"):
            other.source(listen=address).serve()
        other.close()
    assert site.source(serve=True, listen=address).check() == []


def test_a_check_knows_its_own_endpoint_behind_tls(site: Site, certificate: Certificate) -> None:
    tls = {"cert": str(certificate.certificate), "key": str(certificate.key)}
    address = f"127.0.0.1:{free_port()}"
    with closing(site.source(serve=True, listen=address, tls=tls).open(None)):
        assert site.source(serve=True, listen=address, tls=tls).check() == []
        assert site.source(serve=True, listen=address).check() == []


def test_a_check_tells_of_everything_at_once(site: Site) -> None:
    tls = {"cert": "/no/such/file", "key": "/no/such/file"}
    source = site.source(
        serve=True, listen="192.0.2.1:80", allow_http=True, tls=tls, max_body="100MB"
    )
    found = {error.code for error in source.check()}
    assert found == {"webhook.max_body", "webhook.certificate", "webhook.listen"}


def test_a_check_tells_of_an_inbox_whose_name_or_subject_is_taken(site: Site) -> None:
    for stream, code in (
        (f"CDCIN_{site.name}", "jetstream.not_ours"),
        (f"theirs_{site.name}", "jetstream.subjects_taken"),
    ):
        taken = f"CDCIN.{site.name}" if stream.startswith("theirs") else site.name
        with connect(site.nats) as connection:
            api.create_stream(connection, {"name": stream, "subjects": [taken]})
            try:
                (found,) = site.source().check()
                assert found.code == code
                with pytest.raises(ConfigError):
                    site.source().open(None)
            finally:
                api.delete_stream(connection, stream)
