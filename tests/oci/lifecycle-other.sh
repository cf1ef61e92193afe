# timeout: 60

# spec, features, hooks. With version 2 of cgroups, runc also wants a cgroup
# namespace; without root it wants no network namespace, which moat insists on.

(mkdir spec && cd spec && status oci spec && python3 -c '
import json
c = json.load(open("config.json"))
print(sorted(c), c["process"]["args"], c["root"], c["process"]["terminal"], c["process"]["cwd"])
print(sorted(n["type"] for n in c["linux"]["namespaces"] if n["type"] != "cgroup"))' && status oci spec 2>/dev/null)
(mkdir rootless && cd rootless && oci spec --rootless && python3 -c '
import json
c = json.load(open("config.json"))
print(sorted(n["type"] for n in c["linux"]["namespaces"] if n["type"] not in ("cgroup", "network")), [m["containerID"] for m in c["linux"]["uidMappings"]])')
oci features | python3 -c '
import json, sys
f = json.load(sys.stdin)
print({"ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux"} <= set(f), sorted(f["hooks"]))'
cat > hook <<END
#!/bin/sh
python3 -c 'import json, sys; s = json.load(sys.stdin); print(sys.argv[1], s["id"], s["status"], s.get("pid", 0) > 0, s["bundle"] == "$WORK/box", s.get("annotations"))' "\$1" >> $WORK/log
END
chmod 755 hook
hooks=$(python3 -c '
import json, sys
kinds = ["prestart", "createRuntime", "poststop"]
print(json.dumps({k: [{"path": sys.argv[1] + "/hook", "args": ["hook", k], "env": ["PATH=/usr/bin:/bin"]}] for k in kinds}))' "$WORK")
bundle box "{\"hooks\": $hooks, \"annotations\": {\"key\": \"value\"}}" sh -c 'echo started; sleep 1000'
oci create --bundle box box > out; cat log; echo created
oci start box; eventually grep started out; cat log
oci kill box KILL; eventually is box stopped; cat log
oci delete box; cat log
# A hook that fails.
bundle bad '{"hooks": {"createRuntime": [{"path": "/bin/false"}]}}' true
status oci create --bundle bad bad 2>/dev/null
oci list -q
