# platforms: systrap
# timeout: 60

# strace -f of a pipeline: ptrace inside the sandbox.
cd /tmp
strace -f -o log -e trace=execve,write sh -c 'echo one | tr a-z A-Z; exit 3'; echo "status $?"
# Who runs first is up to the scheduler, and so is which calls are shown in two halves; pids differ: the set of
# calls is what must be the same.
grep -E 'execve\(|write\(1' log | grep -v ENOENT | sed -E 's/^[0-9]+ +//; s/0x[0-9a-f]+ \/\*/ADDRESS \/*/; s/( <unfinished \.\.\.>|\) += [0-9]+)$//' | sort
strace -f -c -o counts true && grep -c . counts > /dev/null && echo counted
strace -o log -e trace=openat,read,close cat /etc/hostname && grep -c openat log > /dev/null && grep '/etc/hostname' log
strace -e trace=none -e signal=all sh -c 'kill -USR1 $$' 2>&1 | sed -E 's/si_pid=[0-9]+/si_pid=N/'
strace -o log -e inject=getppid:error=EPERM true; echo "inject $?"
sleep 5 & p=$!; timeout 1 strace -p $p -o log; kill $p; test -s log && echo attached
