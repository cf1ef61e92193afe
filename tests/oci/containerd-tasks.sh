# needs: containerd

# The task service: create, start, pause, resume, metrics, ps, kill, delete.
image=docker.io/library/deb:1
ctr run -d --runc-binary "$OCI" --runtime io.containerd.runc.v2 $image box sh -c 'sleep 1001 & sleep 1002 & wait'
state() { ctr tasks ls | awk -v id="${1:-box}" '$1 == id { print $3 }'; }
state
eventually ctr tasks exec --exec-id look box sh -c 'test $(ps -eo comm= | grep -c sleep) = 2'
ctr tasks pause box; state
ctr tasks exec --exec-id no box true >/dev/null 2>&1 || echo 'no exec'
ctr tasks resume box; state
ctr tasks ps box | tail -n +2 | wc -l
ctr tasks metrics --format json box > metrics
python3 - <<'END'
import json
text = open("metrics").read()
m = json.loads(text)
print(sorted(m))
print("memory", (m.get("memory") or {}).get("usage", {}).get("usage", 0) > 0)
print("cpu", (m.get("cpu") or {}).get("usage", {}).get("total", 0) > 0)
print("pids", (m.get("pids") or {}).get("current", 0) > 0)
END
ctr tasks kill -s KILL --all box
eventually sh -c 'ctr tasks ls | grep -q STOPPED'
ctr tasks delete box; echo "status $?"
ctr containers rm box
# Removed while it runs.
ctr run -d --runc-binary "$OCI" --runtime io.containerd.runc.v2 $image box sleep 1000
state
ctr tasks rm -f box; echo "status $?"
ctr containers rm box
ctr containers ls -q
