# A pod with two containers: a part of podman-pod.sh and podman-rootless-pod.sh.
p() { podman --runtime "$RUNTIME" "$@"; }
eventually() { for _ in $(seq 100); do "$@" && return; sleep 0.1; done; echo "never came true: $*"; }
p pod create --name pod --network none --hostname podded --infra-image deb:1 --infra-command 'sleep 100000' | wc -c
p run -d --pod pod --name server deb:1 perl -e '
    use Socket; socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
    bind(S, sockaddr_in(5007, INADDR_ANY)) or die; listen(S, 5);
    while (accept(C, S)) { syswrite(C, "served in the pod\n"); close(C); }' | wc -c
p run -d --pod pod --name box deb:1 sh -c 'echo box > /only; trap "exit 5" TERM; while :; do sleep 0.1; done' | wc -c
p ps --pod --format '{{.Names}} {{.PodName}} {{.Status}}' | grep -v infra | sed 's/Up .*/Up/' | sort
p pod inspect pod | python3 -c 'import json, sys; d = json.load(sys.stdin); print(d["State"], d["NumContainers"])'
# The network and the host name are shared; files and processes are not.
answer() { p exec box bash -c 'exec 3<>/dev/tcp/127.0.0.1/5007; cat <&3' 2>/dev/null; }
eventually answer
p exec box hostname; p exec server hostname
p exec server test -e /only || echo 'another root'
p exec server ps -eo comm= | sort | uniq -c | grep -v ps
p exec box cat /proc/1/comm
p exec box sh -c 'exit 9'; echo "status $?"
# One ends, the others stay.
p stop -t 20 box
p inspect -f '{{.State.Status}} {{.State.ExitCode}}' box server
p start box; eventually answer
p pod stop -t 1 pod | wc -l
p pod ps --format '{{.Name}} {{.Status}}'
p pod start pod | wc -l; eventually answer
p pod rm -f -t 0 pod | wc -c
p pod ps -q; p ps -aq
