# 400s The stack of the sandbox against Linux's, over veth with netem: every byte, both ways, in every setting.
. /usr/local/lib/library.sh
streams=/run/disk/streams

# path SETTING...: what netem does in each direction.
path() {
    local space
    for space in box peer; do
        tc -n "$space" qdisc replace dev eth0 root netem limit 20000 "$@"
    done
}

# both WHAT FLOWS UP DOWN [RCVBUF]: from the peer to the sandbox, and from the sandbox to the peer.
both() {
    local what=$1 in out
    shift
    in=$(ip netns exec peer "$streams" load "${network:-10.9.0.}1" 7000 "$@") || fail "$what, to the sandbox: $in"
    out=$(moat exec c1 /streams load "${network:-10.9.0.}2" 7000 "$@") || fail "$what, from the sandbox: $out"
    echo "$what: $in, $out"
}

# begin MTU: the sandbox and its peer, with a veth pair between them and a server at each end.
begin() {
    local space last=1
    for space in box peer; do
        ip netns del "$space" 2>/dev/null || true
        ip netns add "$space"
    done
    ip -n box link add eth0 mtu "$1" type veth peer name eth0 mtu "$1" netns peer
    for space in box peer; do
        ip -n "$space" link set lo up
        ip -n "$space" link set eth0 up
        ip -n "$space" address add "10.9.0.$last/24" dev eth0
        # IPv6 has no links with less.
        [ "$1" -lt 1280 ] || ip -n "$space" address add "fd09::$last/64" dev eth0 nodad
        last=2
    done
    make_bundle '' /streams serve 7000
    cp "$streams" "$bundle/rootfs/"
    sed -i 's|{"type":"network"}|{"type":"network","path":"/var/run/netns/box"}|' "$bundle/config.json"
    moat create --bundle "$bundle" c1 >/run/served-box 2>&1
    moat start c1
    ip netns exec peer "$streams" serve 7000 >/run/served-peer &
    server=$!
    wait_for 'grep -q serving /run/served-box && grep -q serving /run/served-peer'
}

end() {
    for space in box peer; do
        same "what the server in $space says" "$(cat /run/served-$space)" serving
    done
    moat delete --force c1
    kill "$server"
    wait "$server" || true
}

begin 1500
path delay 0ms
both "nothing lost" 1 2000003 2000001
path delay 1ms loss 5%
both "5 % lost" 2 300003 300001
path delay 10ms loss 1%
both "1 % lost" 2 500003 500001
path delay 10ms reorder 25% gap 5
both "reordered" 1 1000003 1000001
path delay 5ms 4ms
both "shuffled" 1 1000003 1000001
path delay 1ms duplicate 10%
both "duplicated" 1 1000003 1000001
path delay 1ms corrupt 1%
both "corrupted" 1 500003 500001
path delay 100ms
both "far away" 1 1000003 1000001
path delay 1ms
both "tiny windows" 1 100003 100001 2304
path delay 5ms 4ms loss 2% duplicate 2%
network=fd09:: both "all of it, IPv6" 2 300003 300001
end

begin 576
path delay 1ms loss 2%
both "an MTU of 576" 1 300003 300001
end
begin 9000
path delay 1ms loss 1%
both "an MTU of 9000" 1 1000003 1000001
network=fd09:: both "the same, IPv6" 1 1000003 1000001
end
