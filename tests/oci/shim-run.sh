# needs: containerd

# ctr run by each runtime's own shim: output, input, exit status, detached, logs, terminals.
image=docker.io/library/deb:1
case $RUNTIME in moat) shim=io.containerd.moat.v1 ;; *) shim=io.containerd.runc.v2 ;; esac
run() { ctr run --runtime $shim "$@"; }
run --rm $image box echo hello
run --rm $image box sh -c 'echo out; echo err >&2; exit 7' 2>&1 | sort
run --rm $image box sh -c 'exit 9'; echo "status $?"
run --rm $image box sh -c 'kill -9 $$'; echo "status $?"
# (That stdin has an end is not told by this client in time.)
echo 'some input' | run --rm $image box head -n 1
head -c 3000000 /dev/zero | run --rm $image box sh -c 'head -c 3000000 | wc -c'
run --rm $image box sh -c 'head -c 3000000 /dev/zero' | wc -c
run --rm --env A=1 --cwd /usr $image box sh -c 'pwd; echo $A; id'
run --rm --read-only $image box sh -c 'touch /x' 2>&1
run --rm --mount type=bind,src="$WORK",dst=/mnt,options=rbind:rw $image box sh -c 'echo made > /mnt/made'
cat made
run --rm --memory-limit 104857600 $image box sh -c 'cat /proc/1/comm'
run --rm $image box /no/such/command 2>error && echo 'it ran'
grep -o 'no such file or directory' error | head -n 1
# What a failed start has made is gone, so that the name is free.
run -d $image box sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done'
ctr tasks ls | tail -n +2 | tr -s ' ' | cut -d ' ' -f 1,3
ctr tasks exec --exec-id one box echo executed
ctr tasks exec --exec-id two box sh -c 'exit 9'; echo "status $?"
echo 'to exec' | ctr tasks exec --exec-id three box head -n 1
ctr tasks exec --exec-id four box /no/such/command 2>/dev/null || echo 'no such command'
ctr tasks kill -s TERM box
eventually sh -c 'ctr tasks ls | grep -q STOPPED'
ctr tasks delete box; echo "status $?"
ctr containers rm box
# A file gets all, one run after the other.
for n in 1 2; do
    run -d --log-uri "file://$WORK/logs/all" $image box sh -c "echo out $n; echo err $n >&2"
    eventually sh -c 'ctr tasks ls | grep -q STOPPED'
    ctr tasks delete box; ctr containers rm box
done
sort logs/all
# So does a program, by descriptors that it is given.
cat > logger <<'END'
#!/bin/sh
# Some shims have no patience with it.
trap '' TERM
cd "$(dirname "$0")"
echo "$CONTAINER_NAMESPACE $CONTAINER_ID $*" > logged
exec 5>&-
cat <&3 >> logged
cat <&4 >> logged
touch ended
END
chmod +x logger
run -d --log-uri "binary://$WORK/logger?key=a%20value" $image box sh -c 'echo out; echo err >&2; exit 4'
eventually sh -c 'ctr tasks ls | grep -q STOPPED'
ctr tasks delete box; echo "status $?"
eventually test -e ended
cat logged
ctr containers rm box
ctr tasks ls -q; ctr containers ls -q
