#!/usr/bin/python3
"""Both ends of q2q-tun-upnp: the daemon's and the gateway's, the latter a liar if wanted.

  igd.py serve KIND ADDRESS OTHER     an Internet Gateway Device; what it is asked goes to stdout.
                                      OTHER is another address of the same machine: nobody may
                                      ever ask there, and what does is told as well
  igd.py ask PROGRAM GATEWAY LOCAL PORT LIFETIME [OP...]
      starts PROGRAM and sends it requests: map, unmap:PORT, or waits, hold:SECONDS; one line for each answer. At the end
      the socket is closed, and PROGRAM has to end by itself
"""
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

REQUEST = struct.Struct("=IIII4s4sHH")
ANSWER = struct.Struct("=IIII4sHH")
REQUEST_MAGIC, ANSWER_MAGIC = 0x71324944, 0x71324941
RESULTS = ["done", "silent", "refused", "hidden", "broken"]
SEARCH_TARGET = "urn:schemas-upnp-org:device:InternetGatewayDevice:"
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:"


def say(*words):
    print(*words, flush=True)


# ---- the daemon's end


def ask(program, gateway, local, port, lifetime, *ops):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$0" 3<&%d %d<&-' % (theirs.fileno(), theirs.fileno()), program],
        pass_fds=[theirs.fileno()], env={})
    theirs.close()
    for i, op in enumerate(ops):
        name, _, outer = op.partition(":")
        if name == "hold":
            time.sleep(float(outer))
            continue
        began = time.monotonic()
        ours.send(REQUEST.pack(REQUEST_MAGIC, i, 1 if name == "map" else 2, int(lifetime),
                               socket.inet_aton(gateway), socket.inet_aton(local), int(port),
                               int(outer or port)))
        answer = ours.recv(1000)
        if not answer:
            say("the program ended")
            return 1
        magic, number, result, lease, outside, outer, zero = ANSWER.unpack(answer)
        assert (magic, number, zero) == (ANSWER_MAGIC, i, 0)
        say(op, RESULTS[result], socket.inet_ntoa(outside), outer, lease,
            "in %d s" % (time.monotonic() - began))
    ours.close()
    say("exit status", process.wait(15))
    return 0


# ---- the gateway's end

DESCRIPTION = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor>
</specVersion>{base}<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:{v}
</deviceType><deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType>
<serviceList>{services}</serviceList></device></deviceList></device></deviceList></device></root>
"""
ONE_SERVICE = """<service><serviceType>{type}</serviceType><serviceId>urn:upnp-org:serviceId:W
</serviceId><controlURL>{control}</controlURL><eventSubURL>/e</eventSubURL><SCPDURL>/s</SCPDURL>
</service>"""
ENVELOPE = """<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"
 s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>{}</s:Body></s:Envelope>"""
FAULT = """<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>
<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{}</errorCode>
<errorDescription>no</errorDescription></UPnPError></detail></s:Fault>"""


class Gateway:
    def __init__(self, kind, address, other):
        self.kind, self.address, self.other = kind, address, other
        self.tcp = self.listen(address)
        self.tcp_other = self.listen(other)
        self.port = self.tcp.getsockname()[1]
        self.url = "http://%s:%d" % (address, self.port)
        self.url_other = "http://%s:%d" % (other, self.tcp_other.getsockname()[1])
        self.tried = 0

    @staticmethod
    def listen(address):
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        s.bind((address, 0))
        s.listen(16)
        return s

    # -- the search

    def search(self):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", 1900))
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                     socket.inet_aton("239.255.255.250") + socket.inet_aton(self.address))
        say("ready")
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        out.bind((self.address, 0))
        out_other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        out_other.bind((self.other, 0))
        while True:
            data, peer = s.recvfrom(2000)
            if SEARCH_TARGET.encode() not in data:
                continue
            for answer in self.search_answers():
                out.sendto(answer, peer)
            if self.kind == "lies":
                out_other.sendto(self.search_answer(self.url + "/d"), peer)

    @staticmethod
    def search_answer(location, target=SEARCH_TARGET + "1"):
        return ("HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nSt: %s\r\nLocation: %s\r\n\r\n"
                % (target, location)).encode()

    def search_answers(self):
        url = self.url + "/d"
        if self.kind == "noise":
            random.seed(1)
            for n in range(40):
                yield random.randbytes(n * 40)
        if self.kind != "lies":
            yield self.search_answer(url)
            return
        # A device that is no gateway, a description elsewhere, and such that only seem to be here.
        other = self.url_other[len("http://"):]
        yield self.search_answer(url, "upnp:rootdevice")
        for lie in ["http://%s/d" % other, "http://%s@%s/d" % (self.address, other),
                    "http://%s.%s/d" % (self.address, other), "http://%s0/d" % self.address,
                    "http://router.test:%d/d" % self.port, "https" + url[4:], " ", "/d", "http://"]:
            yield self.search_answer(lie)

    # -- HTTP

    def serve(self):
        threading.Thread(target=self.search, daemon=True).start()
        while True:
            for s in select.select([self.tcp, self.tcp_other], [], [])[0]:
                connection = s.accept()[0]
                if s is self.tcp_other:
                    say("ASKED ELSEWHERE")
                threading.Thread(target=self.talk, args=[connection], daemon=True).start()

    def talk(self, connection):
        try:
            self.answer(connection)
        except OSError:
            pass
        connection.close()

    def answer(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(4096)
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        while length and len(body) < int(length[1]):
            body += connection.recv(4096)
        path = head.split()[1].decode()
        if path == "/d":
            self.describe(connection)
        else:
            self.control(connection, head.decode(), body.decode())

    @staticmethod
    def reply(connection, body, status="200 OK", header=""):
        connection.sendall(("HTTP/1.1 %s\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n%s"
                            "Connection: close\r\n\r\n%s" % (status, len(body), header, body))
                           .encode())

    def describe(self, connection):
        base, control, version = "", "/c", 2 if self.kind == "second" else 1
        if self.kind == "redirect":
            self.reply(connection, "", "302 Found", "Location: %s/d\r\n" % self.url_other)
            return
        if self.kind == "slow":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while True:
                connection.sendall(b"<")
                time.sleep(0.3)
        if self.kind == "endless":
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"<root>" * 10000)
        if self.kind == "negative-length":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n<root>")
            return
        if self.kind == "chunks":
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                               b"ffffffff\r\n" + b"x" * 5000)
            return
        if self.kind == "junk":
            random.seed(2)
            self.reply(connection, "".join(random.choice("<>/=\"' abroot") for _ in range(60000)))
            return
        if self.kind == "long-names":
            self.reply(connection, "<root>" + "<%s>" % ("a" * 70000) * 3 + "</root>" +
                       "<controlURL>%s</controlURL>" % ("/c" * 40000))
            return
        if self.kind == "base-elsewhere":
            base = "<URLBase>%s</URLBase>" % self.url_other
        if self.kind == "base-by-name":
            base = "<URLBase>http://router.test:%d</URLBase>" % self.port
        if self.kind == "control-elsewhere":
            control = self.url_other + "/c"
        services = ONE_SERVICE.format(type=SERVICE + str(version), control=control)
        if self.kind == "two-ways":
            services = ONE_SERVICE.format(
                type="urn:schemas-upnp-org:service:WANPPPConnection:1", control="/dead") + services
        if self.kind == "no-service":
            services = ""
        self.reply(connection, DESCRIPTION.format(base=base, v=version, services=services))

    def fault(self, connection, code):
        self.reply(connection, ENVELOPE.format(FAULT.format(code)), "500 Internal Server Error")

    def control(self, connection, head, body):
        action = re.search(r"(?i)soapaction: *\"[^\"#]*#(\w+)", head)[1]
        values = dict(re.findall(r"<(New\w+)>([^<]*)</", body))
        say(action, values.get("NewExternalPort", "-"), values.get("NewInternalClient", "-"),
            values.get("NewLeaseDuration", "-"))
        handler = getattr(self, action, None)
        if "/dead" in head.split("\r\n")[0] or not handler:
            self.fault(connection, 501)
            return
        result = handler(values)
        if isinstance(result, int):
            self.fault(connection, result)
        else:
            self.reply(connection, ENVELOPE.format(
                '<u:%sResponse xmlns:u="%s1">%s</u:%sResponse>' % (action, SERVICE, result, action)))

    def GetExternalIPAddress(self, _):
        outside = {"hidden": "192.168.7.7", "hidden-cgn": "100.64.1.1", "no-address": "0.0.0.0",
                   "long-values": "9" * 9000, "empty-address": ""}.get(self.kind, "9.8.7.6")
        return "<NewExternalIPAddress>%s</NewExternalIPAddress>" % outside

    def AddPortMapping(self, values):
        self.tried += 1
        if self.kind == "refuses":
            return 606
        if self.kind == "always-taken" or (self.kind == "taken" and self.tried == 1):
            return 718
        if self.kind == "permanent" and values["NewLeaseDuration"] != "0":
            return 725
        if self.kind == "same-ports" and values["NewExternalPort"] != values["NewInternalPort"]:
            return 724
        return ""

    def AddAnyPortMapping(self, _):
        return "<NewReservedPort>40123</NewReservedPort>" if self.kind == "second" else 401

    def DeletePortMapping(self, values):
        return ""


def main():
    if sys.argv[1] == "serve":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        Gateway(*sys.argv[2:5]).serve()
        return 0
    return ask(*sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
