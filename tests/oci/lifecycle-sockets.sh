# timeout: 60

# Unix sockets in a volume: the container listens, and processes of the host connect and send to it by the volume's directory.

mkdir -m 777 volume
case $RUNTIME in
    moat) flags=--host-uds=create ;;
    *) flags= ;;
esac
cat > volume/server <<'END'
use IO::Socket::UNIX; use Socket;
$| = 1;
my $stream = IO::Socket::UNIX->new(Local => "/mnt/stream", Listen => 4) or die;
my $packets = IO::Socket::UNIX->new(Type => SOCK_SEQPACKET, Local => "/mnt/packets", Listen => 4) or die;
my $datagrams = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => "/mnt/datagrams") or die;
chmod 0600, "/mnt/datagrams";
print "listening\n";
for (1 .. 2) {
    my $c = $stream->accept; my ($pid, $uid, $gid) = unpack "lLL", getsockopt $c, SOL_SOCKET, 17;
    print "from ", $c->peerpath // "nobody", " ($pid $uid $gid) by ", $c->hostpath, "\n";
    while (<$c>) { print $c uc }
}
my $p = $packets->accept; $p->recv(my $first, 99); $p->recv(my $second, 99); print "packets $first, $second\n"; $p->send("got them");
my $from = $datagrams->recv(my $text, 99); print "datagram $text from ", (unpack_sockaddr_un $from), "\n";
close $stream; print "closed\n";
sleep 1000;
END
patch=$(python3 -c '
import json, sys
print(json.dumps({"mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/mnt", "type": "bind", "source": sys.argv[1], "options": ["rbind", "rw"]}]}))' "$WORK/volume")
bundle box "$patch" perl /mnt/server
oci $flags create --bundle box box > out 2>&1
oci start box
eventually grep listening out
stat -c '%F %a %u %n' volume/*s*
python3 - 2>&1 <<'END'
import os, socket
os.chdir("volume")
def new(kind, own=None):
    s = socket.socket(socket.AF_UNIX, kind)
    if own:
        s.bind(own)
    return s
for own in "client", None:
    s = new(socket.SOCK_STREAM, own)
    s.connect("stream")
    s.sendall(b"line one\nline two\n")
    s.shutdown(socket.SHUT_WR)
    print(s.makefile().read().split("\n"))
p = new(socket.SOCK_SEQPACKET)
p.connect("packets")
p.send(b"one")
p.send(b"two")
print(p.recv(99))
new(socket.SOCK_DGRAM, "sender").sendto(b"for you", "datagrams")
END
eventually grep closed out
python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("volume/stream")' 2>&1 | tail -1
oci kill box KILL; eventually is box stopped
oci delete box
cat out; ls volume
