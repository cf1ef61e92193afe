# needs: docker

# What the host does in a container's root and in its volumes is an event inside, and what the container does is one once.
mkdir volume
docker_run -d --name box -v "$PWD/volume:/v" deb:1 perl -e '$| = 1;
my $fd = syscall 294, 0;
# Created, deleted, moved.
syscall 254, $fd, $_, 0x3c0 for my $root = "/srv", my $volume = "/v";
open my $in, "<&=", $fd; print "ready\n";
while (sysread $in, my $events, 4096) {
    while (length $events) {
        my ($watch, $mask, $cookie, $length) = unpack "lLLL", $events;
        my $name = unpack "Z*", substr $events, 16, $length;
        printf "%d %x %s\n", $watch, $mask, $name;
        exit if $name eq "end";
        $events = substr $events, 16 + $length;
    }
}' > /dev/null
said() { docker logs box | grep -qx "$1"; }
eventually said ready
echo 1 > copied && docker cp -q copied box:/srv/copied 2>/dev/null || docker cp copied box:/srv/copied > /dev/null
eventually said '1 100 copied'
mkdir volume/made && mv volume/made volume/moved && rmdir volume/moved && eventually said '2 40000200 moved'
docker exec box sh -c 'echo own > /v/own; mv /v/own /srv/own; rm /srv/copied'
echo 2 > volume/last && eventually said '2 100 last'
docker exec box touch /srv/end
docker wait box
docker logs box
docker rm box > /dev/null
