# timeout: 60

# `exec`: more processes in a container.

bundle box '{"process": {"cwd": "/usr", "env": ["PATH=/usr/bin:/bin", "FROM=config"]}}' sleep 1000
oci create --bundle box box >/dev/null
# Also before the start.
status oci exec box sh -c 'echo early; cat /proc/1/comm | wc -l'
oci start box
status oci exec box sh -c 'pwd; echo $FROM; id; exit 42'
status oci exec --cwd /tmp --env FROM=exec --env MORE=1 --user 12:34 box sh -c 'pwd; echo $FROM $MORE; id'
status oci exec --user 12 --additional-gids 5 --additional-gids 6 box id
seq 1000 | status oci exec box tail -n 1
status oci exec box sh -c 'kill -KILL $$'
status oci exec box /no/such/program 2>/dev/null
status oci exec --cwd /no/such/directory box true 2>/dev/null
status oci exec none true 2>/dev/null
oci exec box grep -E '^(Cap|NoNew)' /proc/self/status
oci exec --cap CAP_SYS_PTRACE --cap CAP_KILL box grep -E '^CapEff' /proc/self/status
cat > process.json <<'END'
{ "user": { "uid": 3, "gid": 4, "additionalGids": [ 5 ] }, "args": [ "sh", "-c", "id; pwd; echo $X; grep CapEff /proc/self/status; exit 8" ],
  "env": [ "PATH=/bin:/usr/bin", "X=from the file" ], "cwd": "/tmp" }
END
status oci exec --process process.json box
# In the background; its pid is the runtime's affair, but is one.
status oci exec -d --pid-file pid box sh -c 'echo made > /tmp/made; exec sleep 1001'
kill -0 "$(cat pid)" && echo 'is a process'
eventually oci exec box cat /tmp/made
oci exec box ps -eo comm= | sort | grep -v ps
kill -KILL "$(cat pid)"
two() { test "$(oci exec box ps -eo comm= | grep -c sleep)" = 1; }
eventually two
echo 'by descriptor' > file
status oci exec --preserve-fds 1 box sh -c 'cat <&3' 3< file
for i in 1 2 3 4 5 6 7 8; do oci exec box sh -c "sleep 0.1; exit $i" & pids="${pids:-} $!"; done
for pid in $pids; do wait "$pid"; echo "status $?"; done
# The end of the container ends them.
oci exec box sleep 1002 &
sleep 0.3
oci kill box KILL
wait $!
echo "status $?"
eventually is box stopped
status oci exec box true 2>/dev/null
oci delete box
