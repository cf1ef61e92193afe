# needs: containerd
# timeout: 120

# containerd is killed while containers run, and finds them again by their shims: one that goes on, one that has ended meanwhile.
image=docker.io/library/deb:1
case $RUNTIME in moat) shim=io.containerd.moat.v1 ;; *) shim=io.containerd.runc.v2 ;; esac
store=/var/lib/restart PATH=$PATH:/run/w
# Another one than the world's, on which other cases depend.
cat > own.toml <<END
version = 2
root = "$store/root"
state = "$WORK/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$WORK/own.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$store/opt"
END
own() { ctr -a "$WORK/own.sock" "$@"; }
answers() { own version >/dev/null 2>&1; }
launch() { containerd --config "$WORK/own.toml" > log 2>&1 & daemon=$!; eventually answers; }
end() { kill -KILL "$daemon"; wait "$daemon" 2>/dev/null; }
states() { own tasks ls | awk '$1 == "box" || $1 == "brief" { print $1, $3 }' | sort; }
stopped() { states | grep -q "$1 STOPPED"; }
ctr images export image.tar $image
launch
own images import image.tar >/dev/null
own run -d --runtime $shim $image box sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done'
own run -d --runtime $shim $image brief sh -c 'until test -e /go; do sleep 0.1; done; sleep 1; exit 4'
brief=$(own tasks ls | awk '$1 == "brief" { print $2 }')
states
own tasks exec --exec-id end brief touch /go
end
eventually sh -c "! kill -0 $brief 2>/dev/null"
launch
eventually stopped brief
states
own tasks exec --exec-id one box echo executed
own tasks metrics box | grep -c -i pids
own tasks kill -s TERM box
eventually stopped box
for id in box brief; do own tasks delete $id 2>&1 | grep -o 'exit code .*'; own containers rm $id; done
end
rm -r "$store" own.sock* state
