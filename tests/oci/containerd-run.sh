# needs: containerd

# ctr run with the runtime as containerd's runc: output, input, exit status, detached.
image=docker.io/library/deb:1
run() { ctr run --runc-binary "$OCI" --runtime io.containerd.runc.v2 "$@"; }
run --rm $image box echo hello
run --rm $image box sh -c 'echo out; exit 7'
echo "status $?"
run --rm --env A=1 --cwd /usr $image box sh -c 'pwd; echo $A; id'
run --rm --read-only $image box sh -c 'touch /x' 2>&1
run --rm --mount type=bind,src="$WORK",dst=/mnt,options=rbind:rw $image box sh -c 'echo made > /mnt/made'
cat made
run --rm --memory-limit 104857600 $image box sh -c 'cat /proc/1/comm'
run --rm $image box /no/such/command 2>/dev/null || echo 'no such command'
run -d $image box sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done'
ctr tasks ls | tail -n +2 | tr -s ' ' | cut -d ' ' -f 1,3
ctr tasks exec --exec-id one box echo executed
ctr tasks exec --exec-id two box sh -c 'exit 9'
echo "status $?"
ctr tasks kill -s TERM box
eventually sh -c 'ctr tasks ls | grep -q STOPPED'
ctr tasks delete box
echo "status $?"
ctr containers rm box
ctr tasks ls -q; ctr containers ls -q
