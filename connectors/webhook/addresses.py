"""Which addresses a webhook may be sent to, free of I/O.

Whoever may write a configuration must not thereby reach what only this machine can reach: services
on loopback and private networks, or a cloud's metadata. So only addresses of the public Internet
are allowed unless the owner says otherwise.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Carry an IPv4 address inside, to which the packets go in the end.
_TRANSLATED = IPv6Network("64:ff9b::/96")
_TRANSLATED_LOCALLY = IPv6Network("64:ff9b:1::/48")
# Not in the standard library's list of what is not global.
_FURTHER: tuple[Network, ...] = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments; the metadata of a public cloud
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("168.63.129.16/32"),  # the metadata of another one, at a public address
    IPv6Network("fec0::/10"),  # site-local
    IPv6Network("::/96"),  # IPv4-compatible
)


def meant(address: Address) -> Address:
    """The address at which packets arrive: an embedded IPv4 address is taken out."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def refusal(text: str, allow: bool | Sequence[Network]) -> str:
    """Why an address is not connected to; empty: it is allowed.

    Args:
        text: The address, numeric; may have a scope (`fe80::1%eth0`).
        allow: True: any address; otherwise the networks that are allowed besides public ones.
    """
    if allow is True:
        return ""
    given = ip_address(text.partition("%")[0])
    address = meant(given)
    for network in allow or ():
        if address in network or given in network:
            return ""
    kind = _kind(address)
    return kind and f"{text} is {kind}"


def _kind(address: Address) -> str:
    if address.is_unspecified:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    local = isinstance(address, IPv6Address) and address in _TRANSLATED_LOCALLY
    if local or not address.is_global or any(address in network for network in _FURTHER):
        return "private or reserved"
    return ""
