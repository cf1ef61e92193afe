# needs: containerd

# The task service by each runtime's own shim: figures, pauses, signals, events, removal.
image=docker.io/library/deb:1
case $RUNTIME in moat) shim=io.containerd.moat.v1 ;; *) shim=io.containerd.runc.v2 ;; esac
run() { ctr run -d --runtime $shim "$@"; }
state() { ctr tasks ls | awk -v id="${1:-box}" '$1 == id { print $3 }'; }
stopped() { test "$(state "$1")" = STOPPED; }
ctr events > events 2>/dev/null & listener=$!
# It has to be there before the first event.
seen() { grep -q "$1" events; }
subscribed() { ctr namespaces label default look="$(date +%N)"; seen namespaces/update; }
eventually subscribed
run --memory-limit 104857600 $image box sleep 1000
state
# Numbers of the container itself: one process.
figures() {
    ctr tasks metrics --format json box > metrics
    python3 - <<'END'
import json
m = json.load(open("metrics"))
memory, cpu = m["memory"], m["cpu"]
print("pids", m["pids"].get("current"))
v1 = "usage" in cpu
used, limit = (memory["usage"]["usage"], memory["usage"]["limit"]) if v1 else (memory["usage"], memory["usage_limit"])
print("memory", 0 < used <= limit, limit)
print("cpu", (cpu["usage"]["total"] if v1 else cpu["usage_usec"]) > 0)
END
}
figures
ctr tasks exec --detach --exec-id more box sh -c 'sleep 1001 & sleep 1002'
eventually sh -c 'test $(ctr tasks ps box | tail -n +2 | wc -l) = 4'
figures | head -n 1
ctr tasks pause box; state
ctr tasks exec --exec-id no box true >/dev/null 2>&1 || echo 'no exec'
ctr tasks resume box; state
ctr tasks kill --exec-id more -s KILL box
eventually seen '/tasks/exit.*"more"'
grep -o '"exit_status":[0-9]*' events
ctr tasks kill -s KILL --all box
eventually stopped box
ctr tasks delete box; echo "status $?"
ctr containers rm box
# Out of memory: the status of SIGKILL, and an event.
run --memory-limit 33554432 $image big perl -e 'sleep 1; my $x = "x" x (256 << 20); print length $x'
eventually stopped big
ctr tasks delete big; echo "status $?"
ctr containers rm big
eventually seen '/tasks/oom.*"big"'
# In the order in which it happened.
kill $listener
awk '$5 ~ /^.tasks/ && /"box"/ && !/"more"/ { print $5 }' events
# Removed while it runs.
run $image box sleep 1000
state
ctr tasks rm -f box; echo "status $?"
ctr containers rm box
ctr containers ls -q
rm -f events
