# timeout: 60

# `kill`: signals by name and number, to the first process and to all.

bundle box '{}' sh -c 'for s in HUP INT USR1 USR2 TERM; do trap "echo got $s" $s; done; echo ready; while :; do sleep 0.02; done'
oci create --bundle box box > out; oci start box
eventually grep ready out
for signal in HUP SIGINT 10 usr2 ""; do
    lines=$(wc -l < out)
    # Without a signal it is TERM.
    status oci kill box $signal
    more() { test "$(wc -l < out)" -gt "$lines"; }
    eventually more
done
cat out
status oci kill box NOSUCH 2>/dev/null
status oci kill box 999 2>/dev/null
state box
status oci kill box KILL
eventually is box stopped
oci delete box
# --all reaches the processes that the first one has started.
bundle many '{}' sh -c 'trap "" TERM; for i in 1 2 3; do (trap "echo child $i; exit" TERM; echo up; while :; do sleep 0.02; done) & done; wait; echo all ended; exec sleep 1000'
oci create --bundle many many > out; oci start many
three() { test "$(grep -c up out)" = 3; }
eventually three
status oci kill --all many TERM
ended() { grep -q 'all ended' out; }
eventually ended
sort out
state many
status oci kill --all many KILL
eventually is many stopped
status oci delete many
