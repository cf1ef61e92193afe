# timeout: 60

# `pause` and `resume`.

mkdir shared
bundle box '{}' sh -c 'trap "exit 3" USR1; i=0; while :; do i=$((i+1)); echo $i > /shared/count; sleep 0.02; done'
python3 - "$WORK" <<'END'
import json, sys
file = sys.argv[1] + "/box/config.json"
config = json.load(open(file))
config["root"]["readonly"] = False
config["mounts"].append({"destination": "/tmp/shared", "type": "bind", "source": sys.argv[1] + "/shared", "options": ["bind", "rw"]})
config["process"]["args"][2] = config["process"]["args"][2].replace("/shared", "/tmp/shared")
json.dump(config, open(file, "w"))
END
oci create --bundle box box >/dev/null
oci start box
eventually test -s shared/count
status oci pause box
oci state box | show
sleep 0.1; cp shared/count before; sleep 0.4
cmp before shared/count && echo 'stands still'
status oci pause box 2>/dev/null
status oci exec box true 2>/dev/null
status oci delete box 2>/dev/null
# A signal waits, but for KILL the container's state may not matter.
status oci kill box USR1
state box
status oci resume box
eventually is box stopped
status oci resume box 2>/dev/null
status oci delete box
oci create --bundle box box >/dev/null; oci start box; oci pause box
status oci delete --force box
status oci state box 2>/dev/null
