# timeout: 60

# `run`: create, start, wait and delete in one, and its variants.

bundle box '{}' sh -c 'cat; echo err >&2; exit 7'
echo input | status oci run --bundle box box 2>/dev/null
(cd box && status oci run box < /dev/null 2>&1)
oci state box 2>/dev/null || echo gone
bundle long '{}' sh -c 'echo started; exec sleep 1000'
status oci run -d --bundle long --pid-file pid long > out
eventually grep started out
oci state long | show
kill -0 "$(cat pid)" && echo 'is a process'
# A second of the same name.
status oci run --bundle long long 2>/dev/null
state long
# The end of that process is the end of the container.
kill -KILL "$(cat pid)"
eventually is long stopped
status oci delete long
for signal in TERM KILL; do
    bundle dies '{}' sh -c "sleep 100 & kill -$signal \$!; wait \$!"
    status oci run --bundle dies dies 2>/dev/null
done
bundle self '{}' sh -c 'ulimit -c 0; kill -SEGV $$; echo survived'
status oci run --bundle self self
# Descriptors that are handed on.
bundle fds '{}' sh -c 'cat <&3'
echo 'by descriptor' > file
status oci run --preserve-fds 1 --bundle fds fds 3< file
# The signals that the command gets are the container's.
bundle traps '{}' sh -c 'trap "echo told; exit 5" TERM; echo ready; while :; do sleep 0.05; done'
"$OCI" run --bundle traps traps > out &
eventually grep ready out
kill -TERM $!
wait $!
echo "status $?"; cat out
