"""A SOCKS5 client: CONNECT, UDP ASSOCIATE, RESOLVE, RESOLVE_PTR."""

import ipaddress
import socket
import struct

CONNECT, UDP, RESOLVE, RESOLVE_PTR = 1, 3, 0xF0, 0xF1
NAMES = {
    0: "succeeded", 1: "general failure", 2: "not allowed", 3: "network unreachable", 4: "host unreachable",
    5: "connection refused", 6: "TTL expired", 7: "command not supported", 8: "address type not supported",
}


def pack(host, port):
    try:
        ip = ipaddress.ip_address(host)
        kind = b"\x01" if ip.version == 4 else b"\x04"
        return kind + ip.packed + struct.pack(">H", port)
    except ValueError:
        name = host.encode()
        return b"\x03" + bytes([len(name)]) + name + struct.pack(">H", port)


def exactly(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError(f"closed after {len(data)} of {n} bytes")
        data += more
    return data


def request(proxy, command, host, port, user=None, timeout=60):
    """(reply code, address of the reply, socket)."""
    s = socket.create_connection(proxy, timeout=timeout)
    if user is None:
        s.sendall(b"\x05\x01\x00")
        if exactly(s, 2) != b"\x05\x00":
            raise EOFError("no method")
    else:
        name, password = user.encode(), b"x"
        s.sendall(b"\x05\x01\x02")
        if exactly(s, 2) != b"\x05\x02":
            raise EOFError("no method")
        s.sendall(b"\x01" + bytes([len(name)]) + name + bytes([len(password)]) + password)
        if exactly(s, 2) != b"\x01\x00":
            raise EOFError("not let in")
    s.sendall(b"\x05" + bytes([command]) + b"\x00" + pack(host, port))
    _, code, _, kind = exactly(s, 4)
    if kind == 1:
        where = str(ipaddress.ip_address(exactly(s, 4)))
    elif kind == 4:
        where = str(ipaddress.ip_address(exactly(s, 16)))
    else:
        where = exactly(s, exactly(s, 1)[0]).decode()
    (at,) = struct.unpack(">H", exactly(s, 2))
    return code, (where, at), s


def connect(proxy, host, port, user=None, timeout=60):
    code, _, s = request(proxy, CONNECT, host, port, user, timeout)
    if code:
        s.close()
        raise ConnectionError(f"SOCKS reply {code} ({NAMES.get(code)})")
    return s


def get(proxy, host, port, path="/", user=None, timeout=60, came=None):
    """The body of an HTTP answer. `timeout` is how long no byte may come; `came` is told how many have, as they do."""
    with connect(proxy, host, port, user, timeout) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while more := s.recv(1 << 16):
            data += more
            if came:
                came(len(data))
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0] + b" ":
        raise ConnectionError(f"HTTP answered {head[:40]!r}")
    return body
