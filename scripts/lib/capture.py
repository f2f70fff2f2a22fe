"""What an observer of the wire has: every TCP segment on loopback, put together to streams and TLS records."""

import collections
import socket
import struct
import threading

ETH_P_ALL, SOL_PACKET, PACKET_STATISTICS, PACKET_OUTGOING = 3, 263, 6, 4
SO_RCVBUFFORCE = 33


class Capture:
    """Needs the right to open a packet socket; raises PermissionError without."""

    def __init__(self, interface="lo"):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        self.socket.bind((interface, 0))
        self.socket.settimeout(0.2)
        self.packets, self.running = [], True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        # Loopback shows each packet twice, on its way out and in.
        receive, keep = self.socket.recvfrom, self.packets.append
        while self.running:
            try:
                data, where = receive(1 << 17)
            except OSError:
                continue
            if where[2] == PACKET_OUTGOING:
                keep(data)

    def stop(self):
        """Packets that the kernel could not hand over."""
        self.running = False
        self.thread.join()
        _, dropped = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self.socket.close()
        return dropped

    def streams(self, ports):
        """(source port, destination port) -> bytes from the SYN on, of connections to or from `ports`."""
        parts, starts = collections.defaultdict(dict), {}
        for packet in self.packets:
            ip = packet[14:]
            if len(ip) < 40 or ip[0] >> 4 != 4 or ip[9] != 6:
                continue
            tcp = ip[(ip[0] & 15) * 4 : struct.unpack(">H", ip[2:4])[0] or len(ip)]
            source, to, number = struct.unpack(">HHI", tcp[:8])
            if source not in ports and to not in ports:
                continue
            if tcp[13] & 2:
                starts[source, to] = number + 1
                parts[source, to].clear()
            data = tcp[(tcp[12] >> 4) * 4 :]
            if data:
                parts[source, to].setdefault(number, data)
        whole = {}
        for key, found in parts.items():
            if key not in starts:
                continue  # began before the capture
            stream, at = bytearray(), starts[key]
            rest = {(number - at) & 0xFFFFFFFF: data for number, data in found.items()}
            for offset in sorted(rest):
                if offset > len(stream):
                    break  # a hole: the capture lost something
                stream[offset : offset + len(rest[offset])] = rest[offset]
            whole[key] = bytes(stream)
        return whole

    def udp(self):
        """(source port, destination port) of every datagram."""
        for packet in self.packets:
            ip = packet[14:]
            if len(ip) >= 28 and ip[0] >> 4 == 4 and ip[9] == 17:
                yield struct.unpack(">HH", ip[(ip[0] & 15) * 4 :][:4])


def records(stream):
    """TLS records (type, length on the wire) after the plain words that agree on TLS; what is no TLS last."""
    at = stream.find(b"\x16\x03")
    if at < 0:
        return [], stream
    found, words = [], stream[:at]
    while at + 5 <= len(stream):
        kind, version, length = stream[at], stream[at + 1], struct.unpack(">H", stream[at + 3 : at + 5])[0]
        if kind not in (20, 21, 22, 23) or version != 3:
            return found, words + stream[at:]
        if at + 5 + length > len(stream):
            break  # cut by the end of the capture
        found.append((kind, 5 + length))
        at += 5 + length
    return found, words
