"""No secret may be stored; what is none may."""

from __future__ import annotations

import pytest

from connectors.elasticsearch.spec import SinkSpec as Elasticsearch
from connectors.errors import ConfigError
from connectors.mysql.spec import MysqlSourceSpec as Mysql
from connectors.postgres.spec import SourceSpec as Postgres
from connectors.rest.spec import RestSourceSpec as Rest
from connectors.webhook.source_spec import SourceSpec as Requests
from connectors.webhook.spec import SinkSpec as Webhook
from control.specs.secrets import check_secrets
from dataflows.configuration.options import SinkOptions


@pytest.mark.parametrize(
    ("model", "settings", "where"),
    [
        (Postgres, {"dsn": "host=h password=hunter2"}, "s.dsn"),
        (Postgres, {"dsn": "host=h password=${PW}hunter2"}, "s.dsn"),
        (Postgres, {"dsn": "host=h password=${PW:-hunter2}"}, "s.dsn"),
        (Postgres, {"dsn": "${DSN:-host=h password=hunter2}"}, "s.dsn"),
        (Postgres, {"dsn": "postgresql://u:hunter2@h/d"}, "s.dsn"),
        (Postgres, {"dsn": "postgresql://u@h/d?password=hunter2"}, "s.dsn"),
        (Postgres, {"dsn": "postgresql://u@h/d?sslpassword=hunter2"}, "s.dsn"),
        (Postgres, {"dsn": "postgresql://u:hunter2@x@h/d"}, "s.dsn"),
        (Postgres, {"dsn": "${HOST} password=hunter2"}, "s.dsn"),
        (Postgres, {"dsn": "hunter2"}, "s.dsn"),
        (Postgres, {"dsn": "$${PW} hunter2"}, "s.dsn"),
        (Mysql, {"dsn": "mysql://u:hunter2@h"}, "s.dsn"),
        (Mysql, {"dsn": "mysql://u:${PW}hunter2@h"}, "s.dsn"),
        (Mysql, {"dsn": "mariadb://u:hunter2@${HOST}/?tls=required"}, "s.dsn"),
        (Mysql, {"dsn": "mysql://u:hunter2"}, "s.dsn"),
        (Webhook, {"url": "https://h/hunter2"}, "s.url"),
        (Webhook, {"url": "https://h/?token=hunter2"}, "s.url"),
        (Webhook, {"url": "https://u:hunter2@h"}, "s.url"),
        (Webhook, {"url": "https://h#hunter2"}, "s.url"),
        (Webhook, {"secrets": ["${A}", "whsec_hunter2"]}, "s.secrets.1"),
        (Webhook, {"headers": {"X-Key": "hunter2"}}, "s.headers.X-Key"),
        (Webhook, {"headers": {"X-Key": "Bearer hunter2 ${A}"}}, "s.headers.X-Key"),
        (Webhook, {"auth": {"bearer": "hunter2"}}, "s.auth.bearer"),
        (Webhook, {"auth": {"user": "u", "password": "hunter2"}}, "s.auth.password"),
        (Elasticsearch, {"api_key": "hunter2"}, "s.api_key"),
        (Elasticsearch, {"password": "hunter2"}, "s.password"),
        (SinkOptions, {"transform": [{"mask": {"salt": "hunter2"}}]}, "s.transform.0.mask.salt"),
        (Rest, {"url": "https://h/v1?key=hunter2"}, "s.url"),
        (Rest, {"query": {"key": "hunter2"}}, "s.query.key"),
        (Rest, {"query": {"pin": "1234567hunter2"}}, "s.query.pin"),
        (Rest, {"headers": {"X-Key": "hunter2"}}, "s.headers.X-Key"),
        (Rest, {"body": {"key": "hunter2"}}, "s.body.key"),
        (Rest, {"body": {"with": [{"pin": "${A}"}, {"pin": "hunter2"}]}}, "s.body.with.1.pin"),
        (Rest, {"auth": {"type": "bearer", "token": "hunter2"}}, "s.auth.token"),
        (Rest, {"auth": {"type": "basic", "user": "u", "password": "hunter2"}}, "s.auth.password"),
        (Rest, {"auth": {"type": "api_key", "key": "hunter2", "header": "x"}}, "s.auth.key"),
        (Rest, {"auth": {"client_secret": "hunter2"}}, "s.auth.client_secret"),
        (Rest, {"auth": {"token_url": "https://h/token?key=hunter2"}}, "s.auth.token_url"),
        (Rest, {"auth": {"token_url": "https://u:hunter2@h/token"}}, "s.auth.token_url"),
        (Rest, {"auth": {"token_url": "https://h/${A:-?hunter2}"}}, "s.auth.token_url"),
        (Requests, {"verify": {"standard": ["${A}", "hunter2"]}}, "s.verify.standard.1"),
        (Requests, {"verify": {"bearer": ["hunter2"]}}, "s.verify.bearer.0"),
    ],
)
def test_a_secret_that_is_written_out_is_refused_unseen(
    model: type, settings: dict[str, object], where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_secrets(model, settings, "s")
    assert (caught.value.code, caught.value.where) == ("config.plaintext_secret", where)
    assert "hunter2" not in str(caught.value)
    assert "${" in caught.value.cure


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (Postgres, {"dsn": "${DSN}"}),
        (Postgres, {"dsn": "${file:/run/secrets/dsn}"}),
        (Postgres, {"dsn": "host=h user=u password=${PW}"}),
        (Postgres, {"dsn": "host=h user=u"}),
        (Postgres, {"dsn": "postgresql://u:${PW}@h:5432/d?sslmode=verify-full"}),
        (Postgres, {"dsn": "postgresql://${USER}:${A}${B}@${HOST:-h}/d"}),
        (Mysql, {"dsn": "mysql://u:${PW}@a:3306,b:3306/?tls=verify-full&ca=/ca.pem"}),
        (Mysql, {"dsn": "${DSN}"}),
        (Webhook, {"url": "https://h:8443${PATH}", "secrets": ["${A}"]}),
        (Webhook, {"url": "https://h/", "auth": {"bearer": "${T}"}}),
        (Webhook, {"url": "${URL}", "headers": {"X-Key": "Token ${A}"}}),
        (Elasticsearch, {"api_key": "${A}", "user": "", "password": ""}),
        (SinkOptions, {"transform": ["unwrap", {"mask": {"salt": "${A}"}}, {"drop": ["a"]}]}),
        (Rest, {"url": "https://h${PATH}", "query": {"per_page": "500", "key": "${KEY}"}}),
        (Rest, {"url": "https://h/v1/items", "query": {"page": "1"}}),
        (Rest, {"url": "${URL}", "query": {"deep": "true"}, "headers": {"X": "Token ${A}"}}),
        (Rest, {"auth": {"token_url": "https://h:8443/oauth/token", "client_secret": "${A}"}}),
        (Rest, {"auth": {"token_url": "https://h/token?${QUERY}"}, "body": {"key": "${KEY}"}}),
        (Rest, {"body": {"limit": 123456789, "deep": [True, None, "50", "${A}"]}}),
        (Requests, {"verify": "none"}),
        (Requests, {"verify": {"github": ["${A}", "${file:/run/secrets/b}"]}}),
        (Postgres, {"dsn": 7, "tables": None}),
        (Postgres, "no mapping"),
    ],
)
def test_references_and_what_is_no_secret_may_be_stored(model: type, settings: object) -> None:
    check_secrets(model, settings, "s")
