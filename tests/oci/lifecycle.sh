# timeout: 60

# The life of a container by the runtime's command line: states, statuses and fields are runc's.

bundle box '{}' sh -c 'echo started; trap "exit 7" TERM; while :; do sleep 0.05; done'
status oci state box 2>/dev/null
status oci create --bundle box --pid-file pid box > out
oci state box | show
test "$(cat pid)" = "$(oci state box | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')" && echo 'the pid of the file'
kill -0 "$(cat pid)" && echo 'is a process'
cat out
# What a created container can't do yet, and what can't be done to it again.
status oci create --bundle box box 2>/dev/null
status oci start box
eventually grep started out
oci state box | show
status oci start box 2>/dev/null
status oci delete box 2>/dev/null
state box
status oci kill box 0
status oci kill box TERM
eventually is box stopped
oci state box | show
status oci kill box TERM 2>/dev/null
status oci start box 2>/dev/null
status oci exec box true 2>/dev/null
status oci pause box 2>/dev/null
status oci delete box
status oci state box 2>/dev/null
status oci delete box 2>/dev/null
status oci delete --force box
status oci start box 2>/dev/null
status oci kill box 2>/dev/null

# The other ends: a created container, a running one, one that has ended by itself.
oci create --bundle box box > out
status oci delete box
status oci state box 2>/dev/null
cat out
oci create --bundle box box >/dev/null; oci start box
status oci delete --force box
status oci state box 2>/dev/null
oci create --bundle box box >/dev/null
status oci kill box KILL
eventually is box stopped
status oci delete box
bundle brief '{}' true
oci create --bundle brief brief; oci start brief
eventually is brief stopped
status oci delete brief
oci list -q
