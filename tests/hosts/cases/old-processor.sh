# short cpus=1 without=rdpid,fsgsbase,xsaves,avx,avx2 One processor, of 2008 for what moat uses of it.
. /usr/local/lib/library.sh
same "the number of processors" "$(nproc)" 1
for feature in rdpid fsgsbase xsaves avx avx2; do
    ! grep -qw "$feature" /proc/cpuinfo || fail "the processor has $feature"
done
same "do" "$(moat do echo hi)" hi
same "do of a user" "$(login user moat do echo hi)" hi
same "ptrace" "$(moat --platform ptrace do echo hi)" hi
same "a pipe" "$(moat do sh -c 'echo a | tr a b')" b
same "threads and signals" "$(moat do bash -c 'sleep 100 & kill $!; wait $!; echo $?')" 143
says "no fsgsbase" moat doctor
