"""What commands print: numbers with every digit."""

from __future__ import annotations

import pytest

from control.cli.output import console, exact, print_payload, show, text_of

DIGITS = '{"id":12345678901234567890.10,"big":123456789012345678901234567890,"less":-5,"n":"ä"}'


def test_numbers_keep_their_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert text_of(exact(DIGITS)) == DIGITS
    show([{"change": exact(DIGITS)}], "json")
    told = capsys.readouterr().out
    assert '"id": 12345678901234567890.10' in told
    assert '"big": 123456789012345678901234567890' in told
    assert '"n": "ä"' in told
    show([{"change": exact(DIGITS)}], "yaml")
    told = capsys.readouterr().out
    assert "id: 12345678901234567890.10\n" in told
    assert "big: 123456789012345678901234567890\n" in told
    assert "less: -5\n" in told
    assert "n: ä\n" in told
    print_payload(console(), DIGITS)
    assert '  "id": 12345678901234567890.10,\n' in capsys.readouterr().out


def test_what_is_no_json_is_shown_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    print_payload(console(), '{"cut": "in tw')
    assert capsys.readouterr().out == '{"cut": "in tw\n'
