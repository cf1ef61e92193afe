# timeout: 60

# Two containers of a pod, as containerd's CRI plugin makes them: with annotations, and the namespaces of the first.

sandbox() { echo "{\"hostname\": \"podded\", \"annotations\": {\"io.kubernetes.cri.container-type\": \"sandbox\", \"io.kubernetes.cri.sandbox-id\": \"$1\"}}"; }
member() {
    echo "{\"hostname\": null, \"annotations\": {\"io.kubernetes.cri.container-type\": \"container\", \"io.kubernetes.cri.sandbox-id\": \"$1\"},
      \"linux\": {\"namespaces\": [{\"type\": \"pid\"}, {\"type\": \"mount\"}, {\"type\": \"network\", \"path\": \"/proc/$2/ns/net\"},
      {\"type\": \"ipc\", \"path\": \"/proc/$2/ns/ipc\"}, {\"type\": \"uts\", \"path\": \"/proc/$2/ns/uts\"}]}}"
}
bundle pause "$(sandbox pause)" sleep 100000
oci create --bundle pause --pid-file pid pause >/dev/null && oci start pause
pid=$(cat pid)
bundle server "$(member pause "$pid")" perl -e '
    use Socket; socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(5008, INADDR_ANY)) or die; listen(S, 5);
    while (accept(C, S)) { syswrite(C, "served in the pod\n"); close(C); }'
bundle box "$(member pause "$pid")" sh -c 'echo inside > /tmp/only; trap "exit 6" TERM; while :; do sleep 0.05; done'
oci exec pause ip link set lo up 2>/dev/null
for id in server box; do status oci create --bundle $id --pid-file $id.pid $id >/dev/null; done
oci list | awk '{ print $1, $3 }'
for id in server box; do status oci start $id; done
for id in server box; do oci state $id | show; kill -0 "$(cat $id.pid)" && echo 'is a process'; done
eventually oci exec box test -e /tmp/only
# Shared: the host name, loopback, System V IPC. Its own: processes, files.
oci exec box hostname; oci exec server hostname
eventually oci exec box sh -c 'test -e /proc/net/tcp'
oci exec box ls /proc | grep -c '^[0-9]'
oci exec server ps -eo pid=,comm= | grep -v ps
oci exec server test -e /tmp/only || echo 'another root'
key=$(oci exec box ipcmk -M 100 | grep -c id); echo "$key"
oci exec server ipcs -m | grep -c root
# Signals, pause and figures are the container's own.
oci pause box; state box; state server; oci resume box; state box
oci ps --format json box | show '' | wc -l | xargs test 0 -lt && echo 'has processes'
status oci kill box TERM
eventually is box stopped
oci state box | show
state server
# The process of the pid file ends as the container does.
eventually sh -c "! kill -0 $(cat box.pid) 2>/dev/null" && echo 'its process is gone'
status oci delete box
# Once more under the same name.
status oci run -d --bundle box box >/dev/null
eventually is box running
status oci exec box sh -c 'exit 9'
status oci delete --force box
status oci kill server KILL; eventually is server stopped; status oci delete server
bundle brief "$(member pause "$pid")" sh -c 'exit 5'
status oci run --bundle brief brief
bundle wrong "$(member pause "$pid")" /no/such/command
status oci create --bundle wrong wrong 2>/dev/null
state pause
oci kill pause KILL; eventually is pause stopped; status oci delete pause
oci list -q
